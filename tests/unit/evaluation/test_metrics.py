"""COCO metrics as values and as tables."""

from __future__ import annotations

import json
from typing import Any

from rich.console import Console

from msdetr.evaluation.metrics import SUMMARY_KEYS, ClassMetrics, CocoMetrics


def make(**changed: Any) -> CocoMetrics:
    values = {key: (i + 1) / 100 for i, key in enumerate(SUMMARY_KEYS)}
    rest = {
        "ap_by_iou": {"0.50": 0.5, "0.95": None},
        "per_class": (ClassMetrics(7, "cat", 3, 0.25, None),),
        "num_images": 1,
        "num_ground_truth": 3,
        "num_detections": 9,
        "num_without_area": 0,
    }
    return CocoMetrics(**{**values, **rest, **changed})


def printed(metrics: CocoMetrics) -> str:
    console = Console(width=120, record=True, quiet=False, file=None)
    with console.capture() as capture:
        console.print(metrics)
    return capture.get()


def test_summary_is_the_twelve_numbers_in_order() -> None:
    summary = make().summary()
    assert next(iter(summary)) == "ap"
    assert list(summary)[-1] == "ar_large"
    assert list(summary.values()) == [(i + 1) / 100 for i in range(12)]


def test_dictionary_is_json_with_the_numbers_at_the_top() -> None:
    document = json.loads(json.dumps(make().to_dict()))
    assert document["ap"] == 0.01
    assert document["per_class"][0]["name"] == "cat"


def test_undefined_is_a_dash_and_zero_is_not() -> None:
    text = printed(make(ap_small=None, ap=0.0, ap_large=0.987))
    cells = [cell.strip() for cell in text.splitlines()[4].strip("│").split("│")]
    assert cells[0] == "0.0"
    assert "98.7" in text
    (row,) = [line for line in text.splitlines() if "cat " in line]
    cells = [cell.strip() for cell in row.strip("│").split("│")]
    assert cells == ["cat", "3", "25.0", "-"]
