"""COCO's box metrics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msdetr.evaluation.matching import (
    Evaluator,
    Library,
    Result,
    ScoringTask,
    accumulate,
    match_boxes,
    prepare_task,
)
from msdetr.evaluation.metrics import SUMMARY_KEYS, ClassMetrics, CocoMetrics

# COCO's order of area ranges and of limits on the detections per image.
_ALL, _SMALL, _MEDIUM, _LARGE = range(4)
_MAX_1, _MAX_10, _MAX_100 = range(3)


def evaluate_boxes(
    ground_truth: Mapping[str, Any],
    results: Sequence[Result],
    *,
    image_ids: Sequence[int] | None = None,
    max_detections: tuple[int, int, int] = (1, 10, 100),
    library: Library | None = None,
) -> CocoMetrics:
    """Score box detections against COCO annotations.

    Draws no random numbers and prints nothing.

    Args:
        ground_truth: Content of an annotation file: images, annotations, categories. Boxes
            without area are left out and counted: nothing can match them.
        results: Detections in COCO's results format: image_id, category_id, bbox (x, y, w, h)
            in pixels, score. Unknown categories are ignored, as COCO does.
        image_ids: Images to evaluate; all by default. Detections of others are ignored.
        max_detections: Limits on the detections per image: of AR_1, of AR_10, of the rest.
            The published numbers use COCO's (1, 10, 100) whatever the detections per image.
        library: What computes them, to the same bits; the fastest that is installed by default.

    Raises:
        DataError: A detection belongs to an image that the ground truth does not have.
    """
    task = prepare_task(ground_truth, results, image_ids=image_ids, max_detections=max_detections)
    evaluator = match_boxes(task, library)
    accumulate(evaluator)
    names = {category["id"]: str(category["name"]) for category in ground_truth["categories"]}
    evaluated = set(task.image_ids)
    return _collect(
        task,
        evaluator,
        names=[names[category] for category in task.category_ids],
        num_detections=sum(int(result["image_id"]) in evaluated for result in results),
    )


def _collect(
    task: ScoringTask, evaluator: Evaluator, *, names: Sequence[str], num_detections: int
) -> CocoMetrics:
    # precision: [IoU, recall, category, area, limit]; recall: [IoU, category, area, limit].
    precision, recall = evaluator.eval["precision"], evaluator.eval["recall"]
    thresholds = [f"{iou:.2f}" for iou in evaluator.params.iouThrs]
    at = {name: index for index, name in enumerate(thresholds)}
    of_all = precision[:, :, :, _ALL, _MAX_100]
    numbers = [
        mean_defined(of_all),
        mean_defined(of_all[at["0.50"]]),
        mean_defined(of_all[at["0.75"]]),
        *(mean_defined(precision[:, :, :, area, _MAX_100]) for area in (_SMALL, _MEDIUM, _LARGE)),
        *(mean_defined(recall[:, :, _ALL, limit]) for limit in (_MAX_1, _MAX_10, _MAX_100)),
        *(mean_defined(recall[:, :, area, _MAX_100]) for area in (_SMALL, _MEDIUM, _LARGE)),
    ]
    per_class = _per_class(task, of_all, names)
    return CocoMetrics(
        **dict(zip(SUMMARY_KEYS, numbers, strict=True)),
        ap_by_iou={name: mean_defined(of_all[index]) for name, index in at.items()},
        per_class=per_class,
        num_images=len(task.image_ids),
        num_ground_truth=sum(entry.num_ground_truth for entry in per_class),
        num_detections=num_detections,
        num_without_area=task.num_without_area,
    )


def _per_class(
    task: ScoringTask, precision: NDArray[np.float64], names: Sequence[str]
) -> tuple[ClassMetrics, ...]:
    counts = Counter(a["category_id"] for a in task.annotations if not a["iscrowd"])
    return tuple(
        ClassMetrics(
            category_id=int(category_id),
            name=names[index],
            num_ground_truth=counts[index + 1],
            ap=mean_defined(precision[:, :, index]),
            ap50=mean_defined(precision[0, :, index]),
        )
        for index, category_id in enumerate(task.category_ids)
    )


def mean_defined(values: NDArray[np.float64]) -> float | None:
    """Mean of the values that have ground truth; the libraries mark others by -1."""
    defined = values[values > -1]
    return float(defined.mean()) if defined.size else None
