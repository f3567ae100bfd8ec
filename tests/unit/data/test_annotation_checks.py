from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from msdetr.data.annotation_checks import (
    check_classes,
    check_crowding,
    check_group_crowding,
    check_spellings,
)
from msdetr.data.coco_index import CocoIndex, read_coco


def index_of(folder: Path, annotations: list[dict[str, Any]]) -> CocoIndex:
    content = {
        "images": [
            {"id": 7, "file_name": "seven.png", "height": 20, "width": 30},
            {"id": 2, "file_name": "two.png", "height": 100, "width": 100},
        ],
        "annotations": [{"id": i, "category_id": 1, **e} for i, e in enumerate(annotations)],
        "categories": [{"id": 1, "name": "a"}],
    }
    (folder / "annotations.json").write_text(json.dumps(content))
    return read_coco(folder, folder / "annotations.json")


@pytest.mark.parametrize(
    ("bbox", "check"),
    [
        ([0, 0, 30, 20], None),  # the whole image
        ([0, 0, 31, 21], None),  # rounding
        ([-1, -1, 5, 5], None),  # rounding
        ([0, 0, 31.5, 20], "box_beyond"),
        ([0, 0, 30, 21.5], "box_beyond"),
        ([-1.5, 0, 5, 5], "box_beyond"),
        ([30, 0, 5, 5], "box_outside"),  # touches the right border
        ([-9, 3, 5, 5], "box_outside"),
        ([40, 50, 0, 0], "box_without_area"),  # outside too, but of no size anywhere
        ([3, 3, 0, 5], "box_without_area"),
        ([3, 3, 5, -5], "box_without_area"),
    ],
)
def test_boxes(tmp_path: Path, bbox: list[float], check: str | None) -> None:
    index = index_of(tmp_path, [{"image_id": 7, "bbox": bbox}])
    assert [finding.check for finding in index.findings] == ([] if check is None else [check])
    assert index.num_without_area == (check in {"box_without_area", "box_outside"})


def test_crowds_may_be_anywhere(tmp_path: Path) -> None:
    crowd = {"image_id": 7, "bbox": [90, 90, 0, 0], "iscrowd": 1}
    other = {"image_id": 7, "bbox": [1, 2, 3, 4]}
    assert index_of(tmp_path, [crowd, other]).findings == ()


def test_nothing_but_crowds(tmp_path: Path) -> None:
    crowds = [{"image_id": 7, "bbox": [i, 0, 9, 9], "iscrowd": 1} for i in range(3)]
    (found,) = index_of(tmp_path, crowds).findings
    assert (found.check, found.severity, found.count) == ("only_crowds", "warning", 3)
    assert index_of(tmp_path, []).findings == ()


FRACTIONS = [[0.1, 0.2, 0.3, 0.4], [0, 0, 1, 1], [0.5, 0.25, 0.5, 0.75]]


@pytest.mark.parametrize(
    ("boxes", "is_found"),
    [
        (FRACTIONS, True),
        ([[0.5, 0.5, 0.5001, 0.5]], True),  # rounding
        ([*FRACTIONS, [3, 3, 5, 5]], False),
        ([[0, 0, 1, 1], [0, 0, 1, 0]], False),  # pixels, it seems
        ([[-0.5, 0, 0.75, 1]], False),
        ([[0.5, 0.5, 0.75, 0.5]], False),
    ],
)
def test_normalised_boxes(boxes: list[list[float]], is_found: bool, tmp_path: Path) -> None:
    entries = [{"image_id": 2, "bbox": box} for box in boxes]
    found = {f.check: f.count for f in index_of(tmp_path, entries).findings}
    assert found.get("normalised_boxes") == (len(boxes) if is_found else None)


@pytest.mark.parametrize(
    ("area", "side", "is_found"),
    [(0, 40, True), (1, 33, True), (1, 32, False), (2, 90, False), (None, 40, False)],
)
def test_tiny_areas_of_large_boxes(
    area: float | None, side: float, is_found: bool, tmp_path: Path
) -> None:
    entry = {"image_id": 2, "bbox": [0, 0, side, side], "area": area}
    small = {"image_id": 2, "bbox": [50, 50, 1, 1], "area": 1}
    found = [f.check for f in index_of(tmp_path, [entry, small]).findings]
    assert ("tiny_area" in found) is is_found


def test_spelling_of_file_names() -> None:
    found = check_spellings(["a\\b.png", "c.png", "d%20.png"], ["a/b.png", "c.png", "d .png"])
    assert [(f.check, f.examples) for f in found] == [
        ("file_name_spelling", ("a\\b.png is a/b.png", "d%20.png is d .png"))
    ]
    assert check_spellings(["a"], ["a"]) == ()


def test_repetition_needs_the_same_image_class_and_box(tmp_path: Path) -> None:
    first = {"image_id": 7, "bbox": [1, 2, 3, 4]}
    others = [{**first, "image_id": 2}, {**first, "bbox": [1, 2, 3, 5]}, {**first, "iscrowd": 1}]
    assert index_of(tmp_path, [first, *others]).findings == ()
    (found,) = index_of(tmp_path, [first, *others, first, first]).findings
    assert (found.check, found.count) == ("duplicate_annotation", 2)
    assert found.examples == ("annotation 4", "annotation 5")


def test_crowding() -> None:
    ids, boxes = np.array([11, 12, 13, 14]), np.array([2, 3, 10, 11])
    checks = {
        found.check: found.examples
        for found in check_crowding(ids, boxes, num_queries=10, max_positives=2)
    }
    assert checks == {
        "more_boxes_than_queries": ("image 14",),
        "more_boxes_than_positives": ("image 12", "image 13", "image 14"),
    }
    assert [f.check for f in check_crowding(ids, boxes, 10, None)] == ["more_boxes_than_queries"]
    assert check_crowding(ids, boxes, 11, 11) == ()


def test_crowding_of_query_groups() -> None:
    ids, boxes = np.array([11, 12, 13]), np.array([5, 6, 9])
    hybrid, denoising = check_group_crowding(ids, boxes, hybrid=5, denoising=8)
    assert (hybrid.check, hybrid.examples) == ("more_boxes_than_hybrid", ("image 12", "image 13"))
    assert denoising.check == "more_boxes_than_denoising_budget"
    assert denoising.examples == ("image 13",)
    assert "max_targets" in denoising.message
    assert check_group_crowding(ids, boxes, hybrid=9, denoising=9) == ()
    assert check_group_crowding(ids, boxes, hybrid=None, denoising=None) == ()


def test_classes() -> None:
    (found,) = check_classes({"a": 0, "b": 3, "c": 0})
    assert (found.check, found.examples) == ("class_without_boxes", ("a", "c"))
    assert check_classes({"a": 1}) == ()
    (found,) = check_classes({"a (id 1)": 2, "a (id 3)": 1}, ["a"])
    assert (found.check, found.severity, found.examples) == ("shared_class_name", "warning", ("a",))
