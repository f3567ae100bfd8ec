"""COCO metrics and typed results."""

from __future__ import annotations

from msdetr.evaluation.coco import evaluate_boxes
from msdetr.evaluation.metrics import SUMMARY_KEYS, ClassMetrics, CocoMetrics
from msdetr.evaluation.results import detections_to_results, read_results, write_results

__all__ = [
    "SUMMARY_KEYS",
    "ClassMetrics",
    "CocoMetrics",
    "detections_to_results",
    "evaluate_boxes",
    "read_results",
    "write_results",
]
