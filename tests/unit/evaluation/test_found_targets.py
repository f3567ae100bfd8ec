"""Targets that a detector finds: counted by hand, and the same with both libraries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from msdetr.evaluation.found_targets import find_targets, number_targets

Draw = Callable[..., tuple[dict[str, Any], list[dict[str, Any]]]]
PLACE = {"image_id": 1, "category_id": 1}


def scene() -> dict[str, Any]:
    boxes = ([0, 0, 10, 10], [50, 0, 10, 10], [100, 0, 10, 10])
    entries = [{**PLACE, "bbox": box, "iscrowd": int(box[0] == 100)} for box in boxes]
    return {
        "images": [{"id": 1}, {"id": 2}],
        "categories": [{"id": 1, "name": "disc"}, {"id": 2, "name": "star"}],
        "annotations": entries,
    }


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, {2}),
        ({"score": 0.29}, set()),
        ({"score": 0.3}, {2}),
        ({"category_id": 2}, set()),
        ({"bbox": [54, 0, 10, 10]}, set()),
        ({"bbox": [53, 0, 10, 10]}, {2}),
        ({"bbox": [100, 0, 10, 10]}, set()),
        ({"bbox": [0, 0, 10, 10]}, {1}),
    ],
    ids=["right", "unsure", "just sure", "class", "far", "near", "crowd", "other"],
)
def test_one_detection(change: dict[str, Any], expected: set[int]) -> None:
    found = find_targets(scene(), [{**PLACE, "bbox": [50, 0, 10, 10], "score": 0.9, **change}])
    assert found.found == expected
    assert found.num_targets == 2


def test_only_chosen_images_count() -> None:
    detection = {**PLACE, "bbox": [0, 0, 10, 10], "score": 0.9}
    found = find_targets(scene(), [detection], image_ids=[2])
    assert (found.found, found.num_targets) == (frozenset(), 0)


def test_both_libraries_find_the_same(random_scene: Draw, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("hotcoco")
    truth, results = random_scene(0)
    fast = find_targets(truth, results)
    monkeypatch.setattr("msdetr.evaluation.matching.fastest_library", lambda: "pycocotools")
    assert find_targets(truth, results) == fast
    assert len(fast.found) > 5


def test_numbers_by_annotation_id() -> None:
    truth = scene()
    for number, entry in enumerate(truth["annotations"]):
        entry["id"] = 70 - number
    truth["annotations"].insert(0, {**PLACE, "id": 5, "bbox": [0, 0, 0, 10]})
    assert number_targets(truth) == {70: 1, 69: 2, 68: 3}
    assert number_targets(truth, image_ids=[2]) == {}
    found = find_targets(truth, [{**PLACE, "bbox": [50, 0, 10, 10], "score": 0.9}]).found
    assert found == {number_targets(truth)[69]}
