"""AP after class-wise non-maximum suppression: what duplicates cost a detector that uses none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

import torch
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from torchvision.ops import batched_nms

from msdetr.evaluation.coco import evaluate_boxes
from msdetr.evaluation.matching import Result

THRESHOLDS = (None, 0.5, 0.6, 0.7, 0.8, 0.9)


@dataclass(frozen=True)
class NmsResult:
    """Metrics under one threshold.

    Attributes:
        threshold: IoU above which the lower score of one class goes; None for no suppression.
        ap: AP over IoU 0.50:0.95; None without ground truth.
        ap50: AP at IoU 0.50; None without ground truth.
        num_detections: Detections that are left.
    """

    threshold: float | None
    ap: float | None
    ap50: float | None
    num_detections: int


@dataclass(frozen=True)
class NmsSweep:
    """Metrics by threshold, without suppression first; prints itself as a table with rich.

    Attributes:
        rows: One per threshold.
    """

    rows: tuple[NmsResult, ...]

    @property
    def gain(self) -> float | None:
        """AP that the best threshold adds to that of no suppression; None without ground truth."""
        plain, best = self.rows[0].ap, self.best.ap
        return None if plain is None or best is None else best - plain

    @property
    def best(self) -> NmsResult:
        """The threshold with the highest AP; the lowest of equal ones."""
        return max(self.rows[1:], key=lambda row: -1.0 if row.ap is None else row.ap)

    def to_dict(self) -> list[dict[str, Any]]:
        """Everything as JSON values."""
        return [asdict(row) for row in self.rows]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Print one row per threshold."""
        table = Table(title="after class-wise NMS")
        for title in ("IoU", "AP", "AP50", "detections"):
            table.add_column(title, justify="right")
        for row in self.rows:
            name = "none" if row.threshold is None else f"{row.threshold:g}"
            table.add_row(name, _percent(row.ap), _percent(row.ap50), str(row.num_detections))
        yield table


def sweep_nms(
    ground_truth: Mapping[str, Any],
    results: Sequence[Result],
    *,
    image_ids: Sequence[int] | None = None,
) -> NmsSweep:
    """Score detections without suppression and with it; arguments as of ``evaluate_boxes``.

    Raises:
        DataError: A detection belongs to an image that the ground truth does not have.
    """
    return NmsSweep(
        tuple(
            score_with_nms(ground_truth, results, threshold, image_ids=image_ids)
            for threshold in THRESHOLDS
        )
    )


def score_with_nms(
    ground_truth: Mapping[str, Any],
    results: Sequence[Result],
    threshold: float | None,
    *,
    image_ids: Sequence[int] | None = None,
) -> NmsResult:
    """Score detections after suppression at one threshold; None is for none.

    Other arguments as of ``evaluate_boxes``.

    Raises:
        DataError: A detection belongs to an image that the ground truth does not have.
    """
    kept = results if threshold is None else suppress_results(results, threshold)
    metrics = evaluate_boxes(ground_truth, kept, image_ids=image_ids)
    return NmsResult(threshold, metrics.ap, metrics.ap50, metrics.num_detections)


def suppress_results(results: Sequence[Result], iou_threshold: float) -> list[Result]:
    """Drop detections that overlap a higher score of their class in their image.

    Args:
        results: Detections in COCO's results format.
        iou_threshold: Overlap in 0..1 above which the lower score goes.

    Returns:
        The detections that are left, in their order but sorted by image.
    """
    return list(_survivors(results, iou_threshold))


def _survivors(results: Sequence[Result], iou_threshold: float) -> Iterator[Result]:
    def image_of(result: Result) -> int:
        return int(result["image_id"])

    for _, group in groupby(sorted(results, key=image_of), key=image_of):
        own = list(group)
        boxes = torch.tensor([result["bbox"] for result in own], dtype=torch.float64)
        boxes[:, 2:] += boxes[:, :2]
        scores = torch.tensor([result["score"] for result in own], dtype=torch.float64)
        classes = torch.tensor(_positions([result["category_id"] for result in own]))
        for index in sorted(batched_nms(boxes, scores, classes, iou_threshold).tolist()):
            yield own[index]


def _positions(values: Sequence[int]) -> list[int]:
    places = {value: place for place, value in enumerate(sorted(set(values)))}
    return [places[value] for value in values]


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"
