"""Detections of two computations, matched one to one."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from msdetr.boxes import iou_and_giou
from msdetr.structures import Detections

THRESHOLD = 0.3
_MIN_IOU = 0.95
_MAX_SCORE_DIFFERENCE = 0.01


@dataclass(frozen=True)
class MatchCounts:
    """How two sets of detections agree; adds up over images.

    Attributes:
        first: Detections of the first computation above the threshold.
        second: Those of the second.
        matched: How many of both have a partner of the same label and nearly the same box and
            score among all detections of the other.
        label_flips: Detections without partner for which the other has the box with another
            label.
        lowest_iou: Over the pairs.
        largest_score_difference: Over the pairs.
    """

    first: int = 0
    second: int = 0
    matched: int = 0
    label_flips: int = 0
    lowest_iou: float = 1.0
    largest_score_difference: float = 0.0

    def __add__(self, other: MatchCounts) -> MatchCounts:
        """Join the counts of other images."""
        return MatchCounts(
            self.first + other.first,
            self.second + other.second,
            self.matched + other.matched,
            self.label_flips + other.label_flips,
            min(self.lowest_iou, other.lowest_iou),
            max(self.largest_score_difference, other.largest_score_difference),
        )

    @property
    def share(self) -> float:
        """Share of the detections that have a partner; 1 where there is nothing to match."""
        total = self.first + self.second
        return self.matched / total if total else 1.0


def match_detections(first: Detections, second: Detections) -> MatchCounts:
    """Match the detections above a score of 0.3, image by image, in both directions.

    Both directions search all detections of the other side, so that a score that one computation
    rounds above the threshold and the other below it is not a difference.
    """
    counts = MatchCounts()
    for one, other in zip(_images(first), _images(second), strict=True):
        forth, back = _match(one, other), _match(other, one)
        merged = forth + back
        counts += MatchCounts(
            forth.first,
            back.first,
            merged.matched,
            merged.label_flips,
            merged.lowest_iou,
            merged.largest_score_difference,
        )
    return counts


def _images(detections: Detections) -> list[Detections]:
    return [
        Detections(boxes, scores, labels)
        for boxes, scores, labels in zip(
            detections.boxes_xyxy_px, detections.scores, detections.labels, strict=True
        )
    ]


def _match(one: Detections, other: Detections) -> MatchCounts:
    num_kept = int((one.scores > THRESHOLD).sum())
    iou = _pairwise_iou(one.boxes_xyxy_px[:num_kept], other.boxes_xyxy_px)
    apart = (one.scores[:num_kept, None] - other.scores[None]).abs()
    same_label = one.labels[:num_kept, None] == other.labels[None]
    near = (iou > _MIN_IOU) & (apart <= _MAX_SCORE_DIFFERENCE)
    free = torch.ones_like(other.scores, dtype=torch.bool)
    counts = MatchCounts(first=num_kept)
    for row in range(num_kept):
        candidates = near[row] & same_label[row] & free
        if candidates.any():
            partner = int(iou[row].where(candidates, iou.new_tensor(-1.0)).argmax())
            free[partner] = False
            pair = (float(iou[row, partner]), float(apart[row, partner]))
            counts += MatchCounts(0, 0, 1, 0, *pair)
        else:
            flipped = bool((near[row] & ~same_label[row] & free).any())
            counts += MatchCounts(label_flips=int(flipped))
    return counts


def _pairwise_iou(first: Tensor, second: Tensor) -> Tensor:
    iou, _ = iou_and_giou(first[:, None], second[None])
    return iou
