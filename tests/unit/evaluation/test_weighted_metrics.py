"""Weighted images give what pycocotools says of physically repeated ones, to the bit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from msdetr.evaluation import SUMMARY_KEYS, evaluate_boxes
from msdetr.evaluation.image_matches import match_images
from msdetr.evaluation.weighted_metrics import weighted_metric

Truth = dict[str, Any]
Results = list[dict[str, Any]]
Draw = Callable[..., tuple[Truth, Results]]


def repeat(truth: Truth, results: Results, copies: Sequence[int]) -> tuple[Truth, Results]:
    originals = [
        image["id"]
        for image, count in zip(truth["images"], copies, strict=True)
        for _ in range(count)
    ]

    def copied(entries: Results) -> Results:
        return [
            {**entry, "image_id": number}
            for number, original in enumerate(originals)
            for entry in entries
            if entry["image_id"] == original
        ]

    images = [{"id": number} for number in range(len(originals))]
    repeated = {**truth, "images": images, "annotations": copied(truth["annotations"])}
    return repeated, copied(results)


def as_number(value: float | None) -> float:
    return np.nan if value is None else value


@pytest.mark.parametrize("rounded", [False, True], ids=["own scores", "shared scores"])
@pytest.mark.parametrize("seed", range(3))
def test_weights_equal_copies(random_scene: Draw, seed: int, rounded: bool) -> None:
    truth, results = random_scene(seed, rounded=rounded)
    matches = match_images(truth, results)
    weights = np.random.default_rng(seed).multinomial(12, np.full(12, 1 / 12), size=3)
    found = {key: weighted_metric(matches, weights, key) for key in SUMMARY_KEYS}
    for row, copies in enumerate(weights):
        expected = evaluate_boxes(*repeat(truth, results, copies), library="pycocotools").summary()
        for key, values in found.items():
            np.testing.assert_array_equal(values[row], as_number(expected[key]), err_msg=key)


def test_right_and_wrong_of_one_score_come_copy_by_copy() -> None:
    """TP FP TP FP has less precision at its second TP than TP TP FP FP."""
    place = {"image_id": 1, "category_id": 1}
    truth = {
        "images": [{"id": 1}],
        "categories": [{"id": 1, "name": "disc"}],
        "annotations": [{**place, "bbox": [x, 0, 10, 10]} for x in (0, 50)],
    }
    results = [{**place, "bbox": [x, 0, 10, 10], "score": 0.5} for x in (0, 100)]
    value = weighted_metric(match_images(truth, results), np.array([[2]]))[0]
    expected = evaluate_boxes(*repeat(truth, results, [2]), library="pycocotools").ap
    assert value == expected
    assert value < evaluate_boxes(truth, results).ap  # type: ignore[operator] # a number here


@pytest.mark.parametrize("library", ["hotcoco", "pycocotools"])
def test_both_libraries_give_the_same_matches(random_scene: Draw, library: Any) -> None:
    pytest.importorskip("hotcoco")
    truth, results = random_scene(4)
    ones = np.ones((1, 12), dtype=np.int64)
    matches = match_images(truth, results, library=library)
    assert weighted_metric(matches, ones, "ap")[0] == evaluate_boxes(truth, results).ap


def test_images_without_ground_truth_have_no_metric(random_scene: Draw) -> None:
    truth, results = random_scene(5)
    matches = match_images({**truth, "annotations": []}, results)
    assert np.isnan(weighted_metric(matches, np.ones((2, 12), dtype=np.int64))).all()


def test_no_weight_at_all_has_no_metric(random_scene: Draw) -> None:
    matches = match_images(*random_scene(5))
    assert np.isnan(weighted_metric(matches, np.zeros((1, 12), dtype=np.int64))).all()


def test_few_rows_at_a_time_change_nothing(
    random_scene: Draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    matches = match_images(*random_scene(6))
    weights = np.random.default_rng(0).multinomial(12, np.full(12, 1 / 12), size=20)
    whole = weighted_metric(matches, weights)
    monkeypatch.setattr("msdetr.evaluation.weighted_metrics._MAX_ELEMENTS", 50)
    np.testing.assert_array_equal(weighted_metric(matches, weights), whole)


def test_chosen_images_are_those_with_weight(random_scene: Draw) -> None:
    matches = match_images(*random_scene(7))
    chosen = np.array([1, 4, 9])
    weights = np.zeros((1, 12), dtype=np.int64)
    weights[0, chosen] = 1
    few = matches.of_images(chosen)
    assert few.image_ids == (2, 5, 10)
    assert weighted_metric(few, np.ones((1, 3), dtype=np.int64)) == weighted_metric(
        matches, weights
    )
