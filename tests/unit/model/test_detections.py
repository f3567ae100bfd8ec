from __future__ import annotations

import torch

from msdetr.model import select_detections, suppress_duplicates
from msdetr.structures import Detections


def test_pairs_of_query_and_class_by_score_in_pixels() -> None:
    logits = torch.tensor([[[0.0, 3.0], [2.0, -1.0]]])
    boxes = torch.tensor([[[0.5, 0.5, 0.2, 0.4], [0.1, 0.9, 0.4, 0.4]]])
    found = select_detections(logits, boxes, torch.tensor([[100, 200]]), 3)
    torch.testing.assert_close(found.scores, torch.tensor([[3.0, 2.0, 0.0]]).sigmoid())
    assert found.labels.tolist() == [[1, 0, 0]]
    # The second box leaves the image: detections are not clipped.
    first, second = [80.0, 30.0, 120.0, 70.0], [-20.0, 70.0, 60.0, 110.0]
    torch.testing.assert_close(found.boxes_xyxy_px, torch.tensor([[first, second, first]]))


def test_images_are_scaled_by_their_own_size() -> None:
    logits, boxes = torch.zeros(2, 1, 1), torch.full((2, 1, 4), 0.5)
    found = select_detections(logits, boxes, torch.tensor([[10, 20], [40, 8]]), 1)
    expected = torch.tensor([[[5, 2.5, 15, 7.5]], [[2, 10, 6, 30]]])
    torch.testing.assert_close(found.boxes_xyxy_px, expected)


def test_never_more_than_all_pairs() -> None:
    found = select_detections(
        torch.randn(2, 3, 4), torch.rand(2, 3, 4), torch.tensor([[9, 9], [9, 9]]), 100
    )
    assert found.scores.shape == (2, 12)
    assert sorted(found.labels[0].tolist()) == sorted([0, 1, 2, 3] * 3)


def test_duplicates_of_one_class_lose_their_score() -> None:
    box, near, far = [0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 9.0], [20.0, 20.0, 30.0, 30.0]
    found = Detections(
        boxes_xyxy_px=torch.tensor([[box, near, near, far]]),
        scores=torch.tensor([[0.9, 0.8, 0.7, 0.6]]),
        labels=torch.tensor([[1, 1, 2, 1]]),
    )
    kept = suppress_duplicates(found, 0.5)
    torch.testing.assert_close(kept.scores, torch.tensor([[0.9, 0.7, 0.6, 0.0]]))
    assert kept.labels.tolist() == [[1, 2, 1, 1]]
    torch.testing.assert_close(kept.boxes_xyxy_px, torch.tensor([[box, near, far, near]]))
    torch.testing.assert_close(suppress_duplicates(found, 0.95).scores, found.scores)
