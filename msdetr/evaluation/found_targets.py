"""Which targets a detector finds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from msdetr.evaluation.matching import Result, ScoringTask, match_boxes, prepare_task

MIN_SCORE = 0.3


@dataclass(frozen=True)
class TargetMatch:
    """A target and the detection that it was matched with.

    Attributes:
        number: Of the target, comparable between detectors on the same images.
        image_id: Id of the image.
        category_id: Id of the class.
        target_xyxy_px: Corners of the target, in pixels of the image.
        detection_xyxy_px: Corners of the detection.
        score: Of the detection.
    """

    number: int
    image_id: int
    category_id: int
    target_xyxy_px: tuple[float, float, float, float]
    detection_xyxy_px: tuple[float, float, float, float]
    score: float


@dataclass(frozen=True)
class FoundTargets:
    """Targets at IoU 0.5, crowd not counted.

    Attributes:
        found: Numbers of those that a detection of their class was matched with, comparable
            between detectors on the same images.
        num_targets: All that there are.
        matches: The same targets with their detections, by number.
    """

    found: frozenset[int]
    num_targets: int
    matches: tuple[TargetMatch, ...] = ()


@dataclass(frozen=True)
class ImageTargets:
    """Targets of one image that only one of two detectors finds.

    Attributes:
        image_id: Id of the image.
        won: Found by the first only.
        lost: Found by the second only.
    """

    image_id: int
    won: tuple[TargetMatch, ...]
    lost: tuple[TargetMatch, ...]


def find_targets(
    ground_truth: Mapping[str, Any],
    results: Sequence[Result],
    *,
    image_ids: Sequence[int] | None = None,
    min_score: float = MIN_SCORE,
) -> FoundTargets:
    """Match detections and list the targets that were found; arguments as of ``evaluate_boxes``.

    Args:
        ground_truth: Content of an annotation file.
        results: Detections in COCO's results format.
        image_ids: Images to look at; all by default.
        min_score: Detections below do not count: among 100 per image almost everything is found.

    Raises:
        DataError: A detection belongs to an image that the ground truth does not have.
    """
    confident = [result for result in results if result["score"] >= min_score]
    task = prepare_task(ground_truth, confident, image_ids=image_ids)
    evaluator = match_boxes(task)
    everything = max(limits[1] for limits in evaluator.params.areaRng)
    found: dict[int, int] = {}
    for entry in evaluator.evalImgs:
        if entry is None or tuple(entry["aRng"]) != (0, everything):
            continue
        # The first threshold is 0.5.
        detections = np.asarray(entry["gtMatches"][0]).reshape(-1)
        counts = (detections > 0) & (np.asarray(entry["gtIgnore"]).reshape(-1) == 0)
        numbers = np.asarray(entry["gtIds"])[counts]
        found |= zip(map(int, numbers), map(int, detections[counts]), strict=True)
    num_targets = sum(not entry["iscrowd"] for entry in task.annotations)
    matches = (_describe(task, *pair) for pair in sorted(found.items()))
    return FoundTargets(frozenset(found), num_targets, tuple(matches))


def list_won_and_lost(first: FoundTargets, second: FoundTargets) -> list[ImageTargets]:
    """List targets that only one of two detectors finds, by image.

    Args:
        first: Of one detector.
        second: Of another, on the same images.

    Returns:
        Images with such targets, those with most first; equal ones by id.
    """
    won, lost = (
        _by_image([match for match in ours.matches if match.number not in theirs.found])
        for ours, theirs in ((first, second), (second, first))
    )
    images = [
        ImageTargets(image, tuple(won.get(image, ())), tuple(lost.get(image, ())))
        for image in sorted({*won, *lost})
    ]
    return sorted(images, key=lambda image: -len(image.won) - len(image.lost))


def number_targets(
    ground_truth: Mapping[str, Any], *, image_ids: Sequence[int] | None = None
) -> dict[int, int]:
    """Return the number that :func:`find_targets` gives to every annotation, by its id.

    Args:
        ground_truth: Content of an annotation file.
        image_ids: Images to look at; all by default.
    """
    ids = prepare_task(ground_truth, [], image_ids=image_ids).annotation_ids
    return {given: number for number, given in enumerate(ids, start=1) if given is not None}


def _describe(task: ScoringTask, number: int, detection_number: int) -> TargetMatch:
    target, detection = task.annotations[number - 1], task.detections[detection_number - 1]
    return TargetMatch(
        number=number,
        image_id=task.image_ids[target["image_id"] - 1],
        category_id=task.category_ids[target["category_id"] - 1],
        target_xyxy_px=_corners(target["bbox"]),
        detection_xyxy_px=_corners(detection["bbox"]),
        score=float(detection["score"]),
    )


def _corners(bbox: Sequence[float]) -> tuple[float, float, float, float]:
    x, y, width, height = map(float, bbox)
    return (x, y, x + width, y + height)


def _by_image(matches: Sequence[TargetMatch]) -> Mapping[int, list[TargetMatch]]:
    grouped: dict[int, list[TargetMatch]] = defaultdict(list)
    for match in matches:
        grouped[match.image_id].append(match)
    return grouped
