"""Matching of two sets of detections."""

from __future__ import annotations

import pytest
import torch

from msdetr.export.agreement import MatchCounts, match_detections
from msdetr.structures import Detections

BOXES = torch.tensor([[10.0, 10, 50, 50], [60, 60, 90, 100], [5, 70, 30, 95]])
SCORES = torch.tensor([0.9, 0.6, 0.2])
LABELS = torch.tensor([1, 2, 1])


def detections(
    boxes: torch.Tensor = BOXES, scores: torch.Tensor = SCORES, labels: torch.Tensor = LABELS
) -> Detections:
    return Detections(boxes[None], scores[None], labels[None])


def test_equal_detections_match_completely() -> None:
    counts = match_detections(detections(), detections())
    assert counts == MatchCounts(first=2, second=2, matched=4, lowest_iou=1.0)
    assert counts.share == 1.0


def test_nothing_to_match_is_agreement() -> None:
    none = detections(scores=SCORES * 0.3)
    assert match_detections(none, none).share == 1.0


def test_other_order_is_no_difference() -> None:
    order = torch.tensor([1, 0, 2])
    swapped = detections(BOXES[order], torch.tensor([0.9, 0.899, 0.2]), LABELS[order])
    close = detections(scores=torch.tensor([0.9, 0.899, 0.2]))
    assert match_detections(close, swapped).share == 1.0


def test_score_on_either_side_of_the_threshold_is_no_difference() -> None:
    above = detections(scores=torch.tensor([0.9, 0.301, 0.2]))
    below = detections(scores=torch.tensor([0.9, 0.299, 0.2]))
    counts = match_detections(above, below)
    assert (counts.first, counts.second, counts.share) == (2, 1, 1.0)


@pytest.mark.parametrize(
    ("change", "flips"),
    [
        ({"boxes": BOXES + torch.tensor([0.0, 4, 0, 4])}, 0),
        ({"scores": torch.tensor([0.85, 0.55, 0.2])}, 0),
        ({"labels": torch.tensor([2, 1, 1])}, 4),
    ],
)
def test_real_differences_are_seen(change: dict[str, torch.Tensor], flips: int) -> None:
    counts = match_detections(detections(), detections(**change))
    assert counts.matched == 0
    assert counts.label_flips == flips


def test_a_partner_serves_once() -> None:
    twins = detections(BOXES[[0, 0, 2]], torch.tensor([0.9, 0.9, 0.2]), torch.tensor([1, 1, 1]))
    single = detections(BOXES[[0, 1, 2]], torch.tensor([0.9, 0.0, 0.0]), torch.tensor([1, 1, 1]))
    counts = match_detections(twins, single)
    assert (counts.first, counts.second, counts.matched) == (2, 1, 2)
