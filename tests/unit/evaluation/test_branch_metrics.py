"""Metrics of both branches, where one of them finds everything twice."""

from __future__ import annotations

import json
from typing import Any

import pytest
from rich.console import Console

from msdetr.evaluation.branch_metrics import NMS_THRESHOLD, BranchMetrics, measure_branches

NO_BRANCH = "trained without a one-to-many branch"


def detections(num_copies: int) -> list[dict[str, Any]]:
    return [
        {
            "image_id": image,
            "category_id": 1,
            "bbox": [5 * copy, 0, 100, 100],
            # Copies of the second image score above the best of the first.
            "score": 0.5 + 0.2 * image - 0.1 * copy,
        }
        for image in (1, 2)
        for copy in range(num_copies)
    ]


def measure(**branches: list[list[dict[str, Any]]]) -> BranchMetrics:
    truth = {
        "images": [{"id": 1}, {"id": 2}],
        "categories": [{"id": 1, "name": "disc"}],
        "annotations": [
            {"image_id": image, "category_id": 1, "bbox": [0, 0, 100, 100]} for image in (1, 2)
        ],
    }
    return measure_branches(truth, branches)


def text_of(metrics: BranchMetrics) -> str:
    console = Console(width=120, record=True)
    console.print(metrics)
    return console.export_text()


def test_what_suppression_mends_shows_in_the_row_of_its_layer() -> None:
    once, twice = detections(1), detections(2)
    found = measure(one_to_one=[[], once], one_to_many=[once, twice])
    content = json.loads(json.dumps(found.to_dict()))
    assert content["nms_threshold"] == NMS_THRESHOLD
    assert [row["ap"] for row in content["one_to_one"]] == pytest.approx([0, 1])
    first, last = content["one_to_many"]
    assert (first["ap"], first["ap_after_nms"]) == pytest.approx((1, 1))
    assert last["ap"] < 0.9
    assert (last["ap_after_nms"], last["ap50_after_nms"]) == pytest.approx((1, 1))
    rows = [line.split("│")[1:3] for line in text_of(found).splitlines() if "one-to" in line]
    assert [(branch.strip(), layer.strip()) for branch, layer in rows] == [
        ("one-to-one", "0"),
        ("one-to-one", "1"),
        ("one-to-many", "0"),
        ("one-to-many", "1"),
    ]
    assert NO_BRANCH not in text_of(found)


def test_model_without_the_branch_says_so() -> None:
    found = measure(one_to_one=[detections(1)])
    assert found.to_dict()["one_to_many"] is None
    assert NO_BRANCH in text_of(found)
