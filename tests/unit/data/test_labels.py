from __future__ import annotations

import numpy as np
import pytest

from msdetr.data.labels import Category, LabelSpace
from msdetr.errors import DataError

ANIMALS = [Category(7, "cat"), Category(3, "dog"), Category(90, "emu")]


def test_contiguous_maps_ascending_ids() -> None:
    space = LabelSpace.contiguous(ANIMALS)
    assert space == LabelSpace((3, 7, 90), ("dog", "cat", "emu"), 3)
    assert space.labels == (0, 1, 2)
    assert space.category_id_by_label == (3, 7, 90)
    assert space.names_by_label == ("dog", "cat", "emu")


def test_coco91_uses_raw_ids() -> None:
    space = LabelSpace.coco91(ANIMALS)
    assert space.num_classes == 91
    assert space.labels == (3, 7, 90)
    assert space.category_id_by_label[7] == 7
    assert len(space.category_id_by_label) == len(space.names_by_label) == 91
    assert space.names_by_label[3] == "dog"
    assert space.names_by_label[0] == "unused_0"


@pytest.mark.parametrize("bad_id", [0, 91, -1])
def test_coco91_refuses_other_ids(bad_id: int) -> None:
    with pytest.raises(
        DataError, match=rf"x\.json: category 'yak': id {bad_id} lies outside 1..90"
    ):
        LabelSpace.coco91([*ANIMALS, Category(bad_id, "yak")], "x.json")


def test_labels_of_maps_arrays() -> None:
    space = LabelSpace.contiguous(ANIMALS)
    np.testing.assert_array_equal(space.labels_of([90, 3, 3, 7]), [2, 0, 0, 1])
    assert space.labels_of([]).shape == (0,)


def test_labels_of_names_unknown_categories() -> None:
    with pytest.raises(
        DataError, match=r"val\.json: category ids 4, 8 are not among the model's 3"
    ):
        LabelSpace.contiguous(ANIMALS).labels_of([3, 8, 4], "val.json")


@pytest.mark.parametrize(
    ("ids", "names", "num_classes"),
    [
        ((2, 1), ("a", "b"), 2),  # not ascending
        ((1, 1), ("a", "b"), 2),  # repeated
        ((1, 2), ("a",), 2),  # a name is missing
        ((1, 95), ("a", "b"), 91),  # an id beyond the classes
    ],
)
def test_rejects_fields_that_do_not_fit(
    ids: tuple[int, ...], names: tuple[str, ...], num_classes: int
) -> None:
    with pytest.raises(ValueError, match="category"):
        LabelSpace(ids, names, num_classes)
