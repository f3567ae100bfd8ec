"""Box conversions and overlaps. All functions accept any leading dimensions."""

from __future__ import annotations

import torch
from torch import Tensor

LOGIT_EPS = 1e-5


def cxcywh_to_xyxy(boxes: Tensor) -> Tensor:
    """Convert [..., 4] boxes from centre and size to corners."""
    centre, half = boxes[..., :2], boxes[..., 2:] * 0.5
    return torch.cat([centre - half, centre + half], dim=-1)


def xyxy_to_cxcywh(boxes: Tensor) -> Tensor:
    """Convert [..., 4] boxes from corners to centre and size."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return torch.cat([(low + high) * 0.5, high - low], dim=-1)


def safe_logit(x: Tensor, eps: float = LOGIT_EPS) -> Tensor:
    """Inverse sigmoid of values clamped to [0, 1], with both sides kept above ``eps``.

    With the default of 1e-5 the result lies within about +-11.5.
    """
    x = x.clamp(0, 1)
    return torch.log(x.clamp(min=eps) / (1 - x).clamp(min=eps))


def iou_and_giou(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Overlaps of two broadcastable sets of corner boxes.

    Args:
        first: [..., 4] boxes (x0, y0, x1, y1).
        second: [..., 4] boxes; leading dimensions broadcast against ``first``'s, so
            ``a[..., :, None, :]`` against ``b[..., None, :, :]`` gives all pairs.

    Returns:
        IoU in [0, 1] and generalised IoU in [-1, 1], both of the broadcast shape. Two boxes
        without area have IoU 0; two identical boxes without area have GIoU 0.

    Source: Rezatofighi et al., CVPR 2019, algorithm 1.
    """
    overlap = torch.min(first[..., 2:], second[..., 2:]) - torch.max(
        first[..., :2], second[..., :2]
    )
    intersection = _product(overlap.clamp(min=0))
    union = area_xyxy(first) + area_xyxy(second) - intersection
    iou = _ratio(intersection, union)
    hull = torch.max(first[..., 2:], second[..., 2:]) - torch.min(first[..., :2], second[..., :2])
    enclosing = _product(hull.clamp(min=0))
    return iou, iou - _ratio(enclosing - union, enclosing)


def area_xyxy(boxes: Tensor) -> Tensor:
    """Area of [..., 4] corner boxes, as a tensor of the leading shape."""
    return _product(boxes[..., 2:] - boxes[..., :2])


def _product(sides: Tensor) -> Tensor:
    # Tensor.prod would copy to the host in its backward, to look for zeros.
    return sides[..., 0] * sides[..., 1]


def _ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    # A masked denominator keeps the gradient finite where both are zero.
    positive = denominator > 0
    return torch.where(positive, numerator / torch.where(positive, denominator, 1.0), 0.0)
