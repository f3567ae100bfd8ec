"""Which targets a detector finds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from msdetr.evaluation.matching import Result, match_boxes, prepare_task

MIN_SCORE = 0.3


@dataclass(frozen=True)
class FoundTargets:
    """Targets at IoU 0.5, crowd not counted.

    Attributes:
        found: Numbers of those that a detection of their class was matched with, comparable
            between detectors on the same images.
        num_targets: All that there are.
    """

    found: frozenset[int]
    num_targets: int


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
    found: set[int] = set()
    for entry in evaluator.evalImgs:
        if entry is None or tuple(entry["aRng"]) != (0, everything):
            continue
        # The first threshold is 0.5.
        is_matched = np.asarray(entry["gtMatches"][0]).reshape(-1) > 0
        counts = is_matched & (np.asarray(entry["gtIgnore"]).reshape(-1) == 0)
        found.update(int(number) for number in np.asarray(entry["gtIds"])[counts])
    num_targets = sum(not entry["iscrowd"] for entry in task.annotations)
    return FoundTargets(frozenset(found), num_targets)


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
