"""Class, L1 and GIoU losses and the supervision branches."""

from __future__ import annotations

from msdetr.losses.class_loss import ClassLoss, FocalLoss
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
from msdetr.losses.varifocal import VarifocalLoss

__all__ = [
    "BranchRule",
    "ClassLoss",
    "Criterion",
    "DenoisingRule",
    "FocalLoss",
    "GroupRule",
    "LossWeights",
    "Normalizer",
    "Supervision",
    "SupervisionBranch",
    "VarifocalLoss",
    "total_loss",
]
