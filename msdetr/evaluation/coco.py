"""COCO's box metrics, computed by pycocotools."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from msdetr.errors import DataError
from msdetr.evaluation.metrics import SUMMARY_KEYS, ClassMetrics, CocoMetrics

Result = Mapping[str, Any]

# COCO's order of area ranges and of limits on the detections per image.
_ALL, _SMALL, _MEDIUM, _LARGE = range(4)
_MAX_1, _MAX_10, _MAX_100 = range(3)


def evaluate_boxes(
    ground_truth: Mapping[str, Any],
    results: Sequence[Result],
    *,
    image_ids: Sequence[int] | None = None,
    max_detections: tuple[int, int, int] = (1, 10, 100),
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

    Raises:
        DataError: A detection belongs to an image that the ground truth does not have.
    """
    known = {int(image["id"]) for image in ground_truth["images"]}
    ids = sorted(known if image_ids is None else set(image_ids))
    _check_images(known, ids, results)
    with redirect_stdout(io.StringIO()):
        truth = _to_coco(ground_truth, _clean_annotations(ground_truth["annotations"]))
        detections = _to_coco(ground_truth, _as_annotations(results))
        evaluator = COCOeval(truth, detections, "bbox")
        evaluator.params.imgIds = ids
        evaluator.params.maxDets = list(max_detections)
        evaluator.evaluate()
        evaluator.accumulate()
    lost = len(ground_truth["annotations"]) - len(truth.dataset["annotations"])
    return _collect(evaluator, results, num_without_area=lost)


def _check_images(known: set[int], ids: Sequence[int], results: Sequence[Result]) -> None:
    strangers = sorted({int(result["image_id"]) for result in results} - known)
    if strangers:
        raise DataError(
            "detections",
            f"{len(strangers)} image ids are not in the annotation file, first {strangers[0]}; "
            "do they belong to another data set?",
        )
    missing = sorted(set(ids) - known)
    if missing:
        raise DataError("image_ids", f"{missing[0]} is not in the annotation file")


def _clean_annotations(annotations: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    # pycocotools takes an annotation with id 0 for "no match", so that ids start at 1 here.
    kept = (a for a in annotations if a["bbox"][2] > 0 and a["bbox"][3] > 0)
    return [
        {
            "id": number,
            "image_id": entry["image_id"],
            "category_id": entry["category_id"],
            "bbox": entry["bbox"],
            "area": entry.get("area", entry["bbox"][2] * entry["bbox"][3]),
            "iscrowd": entry.get("iscrowd", 0),
        }
        for number, entry in enumerate(kept, start=1)
    ]


def _as_annotations(results: Sequence[Result]) -> list[dict[str, Any]]:
    return [
        {
            "id": number,
            "image_id": result["image_id"],
            "category_id": result["category_id"],
            "bbox": result["bbox"],
            "area": result["bbox"][2] * result["bbox"][3],
            "iscrowd": 0,
            "score": result["score"],
        }
        for number, result in enumerate(results, start=1)
    ]


def _to_coco(ground_truth: Mapping[str, Any], annotations: list[dict[str, Any]]) -> COCO:
    coco = COCO()
    coco.dataset = {
        "images": list(ground_truth["images"]),
        "categories": list(ground_truth["categories"]),
        "annotations": annotations,
    }
    coco.createIndex()
    return coco


def _collect(
    evaluator: COCOeval, results: Sequence[Result], *, num_without_area: int
) -> CocoMetrics:
    # precision: [IoU, recall, category, area, limit]; recall: [IoU, category, area, limit].
    precision, recall = evaluator.eval["precision"], evaluator.eval["recall"]
    thresholds = [f"{iou:.2f}" for iou in evaluator.params.iouThrs]
    at = {name: index for index, name in enumerate(thresholds)}
    of_all = precision[:, :, :, _ALL, _MAX_100]
    numbers = [
        _mean(of_all),
        _mean(of_all[at["0.50"]]),
        _mean(of_all[at["0.75"]]),
        *(_mean(precision[:, :, :, area, _MAX_100]) for area in (_SMALL, _MEDIUM, _LARGE)),
        *(_mean(recall[:, :, _ALL, limit]) for limit in (_MAX_1, _MAX_10, _MAX_100)),
        *(_mean(recall[:, :, area, _MAX_100]) for area in (_SMALL, _MEDIUM, _LARGE)),
    ]
    evaluated = set(evaluator.params.imgIds)
    per_class = _per_class(evaluator, evaluated)
    return CocoMetrics(
        **dict(zip(SUMMARY_KEYS, numbers, strict=True)),
        ap_by_iou={name: _mean(of_all[index]) for name, index in at.items()},
        per_class=per_class,
        num_images=len(evaluated),
        num_ground_truth=sum(entry.num_ground_truth for entry in per_class),
        num_detections=sum(int(result["image_id"]) in evaluated for result in results),
        num_without_area=num_without_area,
    )


def _per_class(evaluator: COCOeval, image_ids: set[int]) -> tuple[ClassMetrics, ...]:
    truth = evaluator.cocoGt
    counts = Counter(
        entry["category_id"]
        for entry in truth.dataset["annotations"]
        if entry["image_id"] in image_ids and not entry["iscrowd"]
    )
    precision = evaluator.eval["precision"][:, :, :, _ALL, _MAX_100]
    return tuple(
        ClassMetrics(
            category_id=int(category_id),
            name=str(truth.cats[category_id]["name"]),
            num_ground_truth=counts[category_id],
            ap=_mean(precision[:, :, index]),
            ap50=_mean(precision[0, :, index]),
        )
        for index, category_id in enumerate(evaluator.params.catIds)
    )


def _mean(values: NDArray[np.float64]) -> float | None:
    defined = values[values > -1]
    return float(defined.mean()) if defined.size else None
