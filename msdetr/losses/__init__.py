"""Focal, L1 and GIoU losses and the supervision branches."""

from __future__ import annotations

from msdetr.losses.criterion import Criterion, total_loss
from msdetr.losses.supervision import BranchRule, LossWeights, Supervision, SupervisionBranch

__all__ = [
    "BranchRule",
    "Criterion",
    "LossWeights",
    "Supervision",
    "SupervisionBranch",
    "total_loss",
]
