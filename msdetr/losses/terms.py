"""Losses of pairs and of background, before any weighting or normalization."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import softplus

from msdetr.boxes import cxcywh_to_xyxy, iou_and_giou


class _BackgroundFocal(torch.autograd.Function):
    """Focal loss of negative logits [N, ...], summed per layer.

    Keeping only the logits for the backward, and writing into few buffers, is what makes it
    several times faster and smaller than the composed operations.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, alpha: float, gamma: float) -> Tensor:  # noqa: ANN401
        ctx.save_for_backward(logits)
        ctx.alpha, ctx.gamma = alpha, gamma
        # Not in place: compiled by torch 2.11, that would spoil the backward's probabilities.
        loss = logits.sigmoid().pow(gamma) * softplus(logits)
        return loss.flatten(1).sum(dim=1) * (1 - alpha)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401
        (logits,) = ctx.saved_tensors
        # d/dx p^g * ce = p^g * (p + g * (1 - p) * ce), with ce = softplus(x).
        p = logits.sigmoid()
        slope = softplus(logits).mul_(1 - p).mul_(ctx.gamma).add_(p).mul_(p.pow_(ctx.gamma))
        factor = grad.mul(1 - ctx.alpha).view(-1, *[1] * (logits.ndim - 1))
        return slope.mul_(factor), None, None


def background_focal_loss(logits: Tensor, alpha: float, gamma: float) -> Tensor:
    """Compute the focal loss of logits that are all negatives.

    Args:
        logits: [N, ...] float.
        alpha: Weight of positives, in 0..1; negatives weigh 1 - alpha.
        gamma: Focusing exponent.

    Returns:
        [N] float, summed over all other dimensions.

    Source: Lin et al., Focal Loss, ICCV 2017, equation 5.
    """
    summed: Tensor = _BackgroundFocal.apply(logits, alpha, gamma)
    return summed


def positive_focal_excess(logits: Tensor, alpha: float, gamma: float) -> Tensor:
    """Compute by how much the focal loss of logits as positives exceeds that as negatives.

    Args:
        logits: [...] float.
        alpha: Weight of positives, in 0..1.
        gamma: Focusing exponent.

    Returns:
        [...] float.

    Source: Lin et al., Focal Loss, ICCV 2017, equation 5.
    """
    p = logits.sigmoid()
    positive = alpha * (1 - p).pow(gamma) * softplus(-logits)
    negative = (1 - alpha) * p.pow(gamma) * softplus(logits)
    return positive - negative


def l1_loss(boxes: Tensor, target_boxes: Tensor) -> Tensor:
    """Return the L1 distances of [R, 4] boxes (cx, cy, w, h), summed over coordinates, as [R]."""
    return (boxes - target_boxes).abs().sum(dim=-1)


def giou_loss_and_iou(boxes: Tensor, target_boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Return 1 - generalised IoU of [R, 4] boxes (cx, cy, w, h), as [R] in 0..2, and their IoU.

    The IoU, [R] in 0..1, has no gradient.
    """
    iou, giou = iou_and_giou(cxcywh_to_xyxy(boxes), cxcywh_to_xyxy(target_boxes))
    return 1 - giou, iou.detach()


def sum_per_layer(values: Tensor, layer: Tensor, valid: Tensor, num_layers: int) -> Tensor:
    """Add up the values of each layer's valid rows.

    Args:
        values: [R] float.
        layer: [R] int64 in 0..N-1.
        valid: [R] bool.
        num_layers: N.

    Returns:
        [N] float.
    """
    # Masks instead of index_add_, whose order of additions varies on GPUs.
    layers = torch.arange(num_layers, device=layer.device)
    return torch.where((layers[:, None] == layer) & valid, values, 0.0).sum(dim=1)
