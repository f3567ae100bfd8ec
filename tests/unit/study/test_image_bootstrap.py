"""Resampled images: exact on copies, nothing for a model against itself, fast enough."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from msdetr.evaluation import SUMMARY_KEYS, evaluate_boxes
from msdetr.evaluation.image_matches import ImageMatches, match_images
from msdetr.study.image_bootstrap import bootstrap_images, draw_images
from msdetr.study.interval import Interval

Draw = Callable[..., tuple[dict[str, Any], list[dict[str, Any]]]]


def half_of(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return results[::2]


def test_draws_are_as_many_as_images_and_repeatable() -> None:
    draws = draw_images(7, 50)
    assert draws.shape == (50, 7)
    assert (draws.sum(axis=1) == 7).all()
    np.testing.assert_array_equal(draws, draw_images(7, 50))
    assert (draws != draw_images(7, 50, seed=1)).any()


@pytest.mark.parametrize("metric", SUMMARY_KEYS)
def test_model_against_itself(random_scene: Draw, metric: str) -> None:
    matches = match_images(*random_scene(0))
    found = bootstrap_images(matches, matches, metric, num_resamples=50)
    assert found is not None
    assert (found.difference, found.interval) == (0, Interval(0, 0))


def test_observed_difference_is_that_of_the_metrics(random_scene: Draw) -> None:
    truth, results = random_scene(1)
    few = half_of(results)
    found = bootstrap_images(match_images(truth, few), match_images(truth, results), "ap75")
    both = [evaluate_boxes(truth, each).ap75 for each in (few, results)]
    assert found is not None
    assert both[0] is not None
    assert both[1] is not None
    assert found.difference == both[0] - both[1]
    assert found.interval.low < found.difference < found.interval.high
    assert json.loads(json.dumps(found.to_dict()))["metric"] == "ap75"


def test_undefined_metrics_have_no_difference(random_scene: Draw) -> None:
    truth, results = random_scene(2)
    matches = match_images({**truth, "annotations": []}, results)
    assert bootstrap_images(matches, matches) is None


def test_other_images_are_refused(pool: dict[str, ImageMatches]) -> None:
    first, second = (pool["better"].of_images(np.arange(n, n + 5)) for n in (0, 1))
    with pytest.raises(ValueError, match="not matched on the same images"):
        bootstrap_images(first, second)


def test_thousand_resamples_take_seconds(random_scene: Draw) -> None:
    truth, results = random_scene(0, num_images=200, max_detections=200)
    truth["categories"] = [{"id": n, "name": str(n)} for n in range(1, 8)]
    for number, entry in enumerate([*truth["annotations"], *results]):
        entry["category_id"] = 1 + number % 7
    matches = match_images(truth, results)
    start = time.perf_counter()
    bootstrap_images(matches, matches, num_resamples=1000)
    assert time.perf_counter() - start < 30
