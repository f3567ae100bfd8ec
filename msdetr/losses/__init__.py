"""Focal, L1 and GIoU losses and the supervision branches."""

from __future__ import annotations

from msdetr.losses.criterion import Criterion, total_loss
from msdetr.losses.supervision import (
    BranchRule,
    DenoisingRule,
    GroupRule,
    LossWeights,
    Normalizer,
    Supervision,
    SupervisionBranch,
)

__all__ = [
    "BranchRule",
    "Criterion",
    "DenoisingRule",
    "GroupRule",
    "LossWeights",
    "Normalizer",
    "Supervision",
    "SupervisionBranch",
    "total_loss",
]
