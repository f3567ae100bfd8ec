"""The class loss of all branches: what it asks of a criterion, and the focal loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from msdetr.losses.terms import background_focal_loss, positive_focal_excess


class ClassLoss(Protocol):
    """A class loss in two parts: all logits as background, then the change at paired logits."""

    def background(self, logits: Tensor) -> Tensor:
        """Compute the loss of logits that are all negatives.

        Args:
            logits: [N, ...] float.

        Returns:
            [N] float, summed over all other dimensions.
        """
        ...

    def excess(self, logits: Tensor, iou: Tensor) -> Tensor:
        """Compute by how much the loss of logits as positives exceeds that as negatives.

        Args:
            logits: [R] float.
            iou: [R] float in 0..1, of the predicted boxes with their targets; no gradient.

        Returns:
            [R] float.
        """
        ...


@dataclass(frozen=True)
class FocalLoss:
    """Focal loss against one-hot targets, wherever the boxes are.

    Attributes:
        alpha: Weight of positives, in 0..1.
        gamma: Focusing exponent.
    """

    alpha: float = 0.25
    gamma: float = 2.0

    def background(self, logits: Tensor) -> Tensor:
        """Compute the loss of logits [N, ...] that are all negatives, as [N]."""
        return background_focal_loss(logits, self.alpha, self.gamma)

    def excess(self, logits: Tensor, iou: Tensor) -> Tensor:  # noqa: ARG002
        """Compute by how much logits [R] cost more as positives than as negatives, as [R]."""
        return positive_focal_excess(logits, self.alpha, self.gamma)
