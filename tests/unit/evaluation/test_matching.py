"""hotcoco and pycocotools: the same arrays to the bit, on random and on nasty inputs."""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata
from typing import Any

import numpy as np
import pytest

from msdetr.evaluation import evaluate_boxes
from msdetr.evaluation.matching import (
    accumulate,
    describe_library,
    fastest_library,
    match_boxes,
    prepare_task,
)

Truth = dict[str, Any]
Results = list[dict[str, Any]]
Draw = Callable[..., tuple[Truth, Results]]


def assert_same_bits(truth: Truth, results: Results, **options: Any) -> None:
    pytest.importorskip("hotcoco")
    task = prepare_task(truth, results, **options)
    both = [match_boxes(task, library) for library in ("pycocotools", "hotcoco")]
    for evaluator in both:
        accumulate(evaluator)
    reference, fast = (evaluator.eval for evaluator in both)
    for name in ("precision", "recall", "scores"):
        assert np.array_equal(reference[name], fast[name]), name


@pytest.mark.parametrize("rounded", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_random_scenes(random_scene: Draw, seed: int, rounded: bool) -> None:
    assert_same_bits(*random_scene(seed, rounded=rounded))


def test_300_detections_per_image(random_scene: Draw) -> None:
    truth, results = random_scene(0, max_detections=300, num_images=4)
    assert_same_bits(truth, results)
    assert_same_bits(truth, results, max_detections=(1, 10, 300))


def test_some_of_the_images(random_scene: Draw) -> None:
    assert_same_bits(*random_scene(1), image_ids=[3, 5, 11])


def all_crowd(truth: Truth, _: Results) -> None:
    for entry in truth["annotations"]:
        entry["iscrowd"] = 1


def no_truth(truth: Truth, _: Results) -> None:
    truth["annotations"].clear()


def no_detections(_: Truth, results: Results) -> None:
    results.clear()


def nothing(truth: Truth, results: Results) -> None:
    truth["annotations"].clear()
    results.clear()


def one_score(_: Truth, results: Results) -> None:
    for result in results:
        result["score"] = 1


def negative_scores(_: Truth, results: Results) -> None:
    for result in results:
        result["score"] -= 2


def no_areas(truth: Truth, results: Results) -> None:
    for entry in truth["annotations"]:
        entry["bbox"][3] = 0
    for result in results:
        result["bbox"][2] = 0


def boxes_at_the_thresholds(truth: Truth, results: Results) -> None:
    results.clear()
    for entry in truth["annotations"]:
        entry.update(bbox=[0, 0, 100, 100], area=1e4)
        results.extend(
            {**entry, "bbox": [0, 0, 100, height], "score": height / 100}
            for height in range(50, 100, 5)
        )


def areas_at_the_limits(truth: Truth, _: Results) -> None:
    for number, entry in enumerate(truth["annotations"]):
        entry["area"] = (32**2, 96**2, 0)[number % 3]


def huge_boxes(_: Truth, results: Results) -> None:
    for result in results:
        result["bbox"] = [0, 0, 1e200, 1e200]


def strange_ids(truth: Truth, results: Results) -> None:
    for entry in [*truth["annotations"], *results]:
        entry["image_id"] -= 6
        entry["category_id"] = 2**70 - entry["category_id"]
    for image in truth["images"]:
        image["id"] -= 6
    for category in truth["categories"]:
        category["id"] = 2**70 - category["id"]


def repeated_category(truth: Truth, _: Results) -> None:
    truth["categories"].append({"id": 3, "name": "again"})


def odd_image_fields(truth: Truth, _: Results) -> None:
    for image in truth["images"]:
        image.update(width="wide", height=2.5, date_captured=5)


@pytest.mark.parametrize(
    "change",
    [
        *(all_crowd, no_truth, no_detections, nothing, one_score, negative_scores, no_areas),
        *(boxes_at_the_thresholds, areas_at_the_limits, huge_boxes, strange_ids),
        *(repeated_category, odd_image_fields),
    ],
)
def test_nasty_scenes(random_scene: Draw, change: Callable[[Truth, Results], None]) -> None:
    truth, results = random_scene(2)
    change(truth, results)
    assert_same_bits(truth, results)


def test_metrics_are_the_same(random_scene: Draw) -> None:
    pytest.importorskip("hotcoco")
    truth, results = random_scene(3)
    fast = evaluate_boxes(truth, results, library="hotcoco")
    assert fast == evaluate_boxes(truth, results, library="pycocotools")
    assert fast.ap is not None
    assert fast.ap > 0.1


@pytest.mark.parametrize(
    ("version", "expected"),
    [("1.3.0", "hotcoco"), ("2.0.0", "hotcoco"), ("1.2.1", "pycocotools"), (None, "pycocotools")],
)
def test_old_releases_are_not_used(
    monkeypatch: pytest.MonkeyPatch, version: str | None, expected: str
) -> None:
    def installed(name: str) -> str:
        if name == "hotcoco" and version is None:
            raise metadata.PackageNotFoundError(name)
        return version if name == "hotcoco" and version else "2.0.11"

    monkeypatch.setattr(metadata, "version", installed)
    assert fastest_library() == expected
    assert describe_library() == f"{expected} {installed(expected)}"
