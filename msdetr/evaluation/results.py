"""Detections in COCO's results format: from tensors, to and from files."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from msdetr.errors import DataError, Problem
from msdetr.files import parse_json, replace_text
from msdetr.structures import Detections

_PROBLEMS_SHOWN = 10


def detections_to_results(
    detections: Detections, image_ids: Sequence[int], category_id_of_label: Sequence[int]
) -> list[dict[str, Any]]:
    """Turn a batch's detections into COCO's results format.

    Args:
        detections: Boxes in pixels of the original images, on any device.
        image_ids: [B] ids of the data set.
        category_id_of_label: [K] category id of every label.

    Returns:
        B * D entries of image_id, category_id, bbox (x, y, w, h in pixels) and score.
    """
    boxes = detections.boxes_xyxy_px.detach().float().cpu()
    sizes = boxes[..., 2:] - boxes[..., :2]
    corners, extents = boxes[..., :2].tolist(), sizes.tolist()
    scores = detections.scores.detach().float().tolist()
    labels = detections.labels.tolist()
    return [
        {
            "image_id": int(image_id),
            "category_id": int(category_id_of_label[labels[image][rank]]),
            "bbox": corners[image][rank] + extents[image][rank],
            "score": scores[image][rank],
        }
        for image, image_id in enumerate(image_ids)
        for rank in range(len(scores[image]))
    ]


def write_results(path: Path, results: Sequence[Mapping[str, Any]]) -> None:
    """Write a results file, replacing an older one as a whole."""
    replace_text(path, json.dumps(list(results)))


def read_results(path: Path, ground_truth: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Read and check a results file.

    Args:
        path: JSON list in COCO's results format.
        ground_truth: Content of the annotation file that it will be scored against.

    Raises:
        DataError: The file is missing, not in COCO's results format, or belongs to another
            data set; one line per problem.
    """
    entries = _read_json_list(path)
    image_ids = {image["id"] for image in ground_truth["images"]}
    problems: list[Problem] = []
    for position, entry in enumerate(entries):
        complaint = _complaint(entry, image_ids)
        if complaint:
            problems.append(Problem(f"entry {position}", complaint))
    if problems:
        raise DataError(str(path), _shorten(problems))
    category_ids = {category["id"] for category in ground_truth["categories"]}
    if entries and not any(entry["category_id"] in category_ids for entry in entries):
        raise DataError(str(path), "none of its category ids is in the annotation file")
    return entries


def _read_json_list(path: Path) -> list[Any]:
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(str(path), f"cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(str(path), f"is not JSON: {error}") from error
    if not isinstance(content, list):
        kind = type(content).__name__
        raise DataError(str(path), f"expected a list in COCO's results format, got a JSON {kind}")
    return content


def _complaint(entry: object, image_ids: set[Any]) -> str | None:
    if not isinstance(entry, dict):
        return f"expected an object, got {entry!r:.40}"
    missing = [k for k in ("image_id", "category_id", "bbox", "score") if k not in entry]
    if missing:
        return f"lacks {', '.join(missing)}"
    for key in ("image_id", "category_id"):
        if not isinstance(entry[key], int) or isinstance(entry[key], bool):
            return f"{key}: expected an integer, got {entry[key]!r:.40}"
    if entry["image_id"] not in image_ids:
        return f"image_id {entry['image_id']} is not in the annotation file"
    if not _is_number(entry["score"]):
        return f"score: expected a finite number, got {entry['score']!r:.40}"
    return _box_complaint(entry["bbox"])


def _box_complaint(box: object) -> str | None:
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)):
        return f"bbox: expected 4 finite numbers (x, y, width, height), got {box!r:.60}"
    if box[2] < 0 or box[3] < 0:
        return f"bbox: width and height must not be negative, got {box!r:.60}"
    return None


def _is_number(value: object) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond the largest float
        return False


def _shorten(problems: Sequence[Problem]) -> list[Problem]:
    shown = list(problems[:_PROBLEMS_SHOWN])
    if len(problems) > len(shown):
        shown.append(Problem("", f"and {len(problems) - len(shown)} more entries"))
    return shown
