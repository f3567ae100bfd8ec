"""Suppression over results files: who goes, and what it does to AP."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

from msdetr.evaluation import evaluate_boxes
from msdetr.evaluation.nms_sweep import THRESHOLDS, suppress_results, sweep_nms

Draw = Callable[..., tuple[dict[str, Any], list[dict[str, Any]]]]


def detection(left: float, score: float, *, image: int = 1, category: int = 1) -> dict[str, Any]:
    box = [left, 0, 100, 100]
    return {"image_id": image, "category_id": category, "bbox": box, "score": score}


def test_only_lower_scores_of_the_same_class_and_image_go() -> None:
    results = [
        detection(10, 0.5),  # overlaps the next with IoU 0.82
        detection(0, 0.9),
        detection(10, 0.4, category=2**40),
        detection(10, 0.3, image=2),
        detection(60, 0.2),  # IoU 0.25 with the best
    ]
    assert suppress_results(results, 0.8) == [results[1], results[2], results[4], results[3]]
    assert suppress_results(results, 0.9) == [*results[:3], results[4], results[3]]
    assert suppress_results([], 0.5) == []


def test_duplicates_are_what_suppression_mends() -> None:
    truth = {
        "images": [{"id": 1}, {"id": 2}],
        "categories": [{"id": 1, "name": "disc"}],
        "annotations": [
            {"image_id": image, "category_id": 1, "bbox": [0, 0, 100, 100]} for image in (1, 2)
        ],
    }
    results = [
        detection(left, score + 0.2 * image, image=image)
        for image in (1, 2)
        for left, score in ((0, 0.5), (5, 0.4))
    ]
    sweep = sweep_nms(truth, results)
    none, *rest = sweep.rows
    assert (none.threshold, none.num_detections) == (None, 4)
    assert [row.ap for row in rest] == pytest.approx([1.0] * 5)
    assert none.ap is not None
    assert sweep.gain == pytest.approx(1 - none.ap)
    assert sweep.gain > 0.1
    assert sweep.best == rest[0]


def test_rows_are_what_evaluation_says(random_scene: Draw) -> None:
    truth, results = random_scene(0, max_detections=60)
    sweep = sweep_nms(truth, results, image_ids=[1, 2, 3, 4, 5])
    assert [row.threshold for row in sweep.rows] == list(THRESHOLDS)
    counts = [row.num_detections for row in sweep.rows]
    assert counts[1:] == sorted(counts[1:])
    assert counts[1] < counts[0]
    kept = suppress_results(results, 0.6)
    expected = evaluate_boxes(truth, kept, image_ids=[1, 2, 3, 4, 5])
    assert (sweep.rows[2].ap, sweep.rows[2].ap50) == (expected.ap, expected.ap50)


def test_without_ground_truth_nothing_is_gained(random_scene: Draw) -> None:
    truth, results = random_scene(1)
    sweep = sweep_nms({**truth, "annotations": []}, results)
    assert sweep.gain is None
    assert {row.ap for row in sweep.rows} == {None}


def test_json_and_table(random_scene: Draw) -> None:
    sweep = sweep_nms(*random_scene(2))
    content = json.loads(json.dumps(sweep.to_dict()))
    assert [row["threshold"] for row in content] == [None, 0.5, 0.6, 0.7, 0.8, 0.9]
    console = Console(width=80, record=True)
    console.print(sweep)
    text = console.export_text()
    assert "after class-wise NMS" in text
    assert "none" in text
