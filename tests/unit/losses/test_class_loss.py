"""The focal loss as the criterion asks for it."""

from __future__ import annotations

import torch

from msdetr.losses import FocalLoss
from msdetr.losses.terms import background_focal_loss, positive_focal_excess


def test_focal_loss_hands_its_settings_on_and_ignores_the_iou() -> None:
    logits = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    loss = FocalLoss(alpha=0.3, gamma=1.5)
    assert torch.equal(loss.background(logits), background_focal_loss(logits, 0.3, 1.5))
    paired = logits[0, 0]
    expected = positive_focal_excess(paired, 0.3, 1.5)
    for iou in (0.0, 0.5, 1.0):
        assert torch.equal(loss.excess(paired, torch.full((4,), iou)), expected)
