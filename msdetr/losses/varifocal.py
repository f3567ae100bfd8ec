"""The varifocal class loss: a positive logit is to tell the IoU of its box."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import softplus

BACKGROUND_WEIGHT = 0.75


class _Background(torch.autograd.Function):
    """Varifocal loss of negative logits [N, ...], summed per layer; only the logits are kept."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor) -> Tensor:  # noqa: ANN401
        ctx.save_for_backward(logits)
        loss = logits.sigmoid().square() * softplus(logits)
        return loss.flatten(1).sum(dim=1) * BACKGROUND_WEIGHT

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # noqa: ANN401
        (logits,) = ctx.saved_tensors
        # The weight p^2 takes part without gradient, and d softplus(x) / dx = p.
        factor = grad.mul(BACKGROUND_WEIGHT).view(-1, *[1] * (logits.ndim - 1))
        slope: Tensor = logits.sigmoid().pow_(3).mul_(factor)
        return slope


@dataclass(frozen=True)
class VarifocalLoss:
    """Cross-entropy with the IoU as target; negatives weigh 0.75 p^2, positives their IoU.

    Unlike in VarifocalNet no gradient passes through the weights. A pair with IoU 0 is
    background.

    Source: Zhang et al., VarifocalNet, CVPR 2021, equation 2; *DETR with Masked Duplicate
    Suppressor*, arXiv 2605.23507 (weights without gradient).
    """

    def background(self, logits: Tensor) -> Tensor:
        """Compute the loss of logits [N, ...] that are all negatives, as [N]."""
        summed: Tensor = _Background.apply(logits)
        return summed

    def excess(self, logits: Tensor, iou: Tensor) -> Tensor:
        """Compute by how much logits [R] cost more with target ``iou`` than as negatives."""
        cost = softplus(logits)
        weight = BACKGROUND_WEIGHT * logits.detach().sigmoid().square()
        return torch.where(iou > 0, iou * (cost - iou * logits) - weight * cost, 0.0)
