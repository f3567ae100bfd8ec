"""Targets that a detector finds: counted by hand, and the same with both libraries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from msdetr.evaluation.found_targets import find_targets, list_won_and_lost, number_targets

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


def test_match_names_target_and_detection() -> None:
    detection = {**PLACE, "bbox": [53, 0, 10, 10], "score": 0.9}
    worse = {**detection, "bbox": [54, 0, 10, 10], "score": 0.99}
    (match,) = find_targets(scene(), [worse, detection]).matches
    assert (match.number, match.image_id, match.category_id, match.score) == (2, 1, 1, 0.9)
    assert match.target_xyxy_px == (50, 0, 60, 10)
    assert match.detection_xyxy_px == (53, 0, 63, 10)


def test_won_and_lost_by_image() -> None:
    truth = scene()
    truth["annotations"] += [
        {"image_id": 2, "category_id": 1, "bbox": [left, 0, 10, 10]} for left in (0, 50, 100)
    ]
    perfect = [{**entry, "score": 0.9} for entry in truth["annotations"]]
    # Annotations 1, 2 and 3 (crowd) are of image 1, the others of image 2.
    first = find_targets(truth, [perfect[0], perfect[3], perfect[5]])
    second = find_targets(truth, [perfect[1], perfect[3], perfect[4], perfect[2]])
    listed = list_won_and_lost(first, second)
    shown = [
        (image.image_id, [m.number for m in image.won], [m.number for m in image.lost])
        for image in listed
    ]
    assert shown == [(1, [1], [2]), (2, [6], [5])]
    more = list_won_and_lost(find_targets(truth, [perfect[5], perfect[4], perfect[0]]), second)
    assert [image.image_id for image in more] == [1, 2]
    most = list_won_and_lost(find_targets(truth, [perfect[3], perfect[5], perfect[1]]), second)
    assert [image.image_id for image in most] == [2]
    assert list_won_and_lost(first, first) == []


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
