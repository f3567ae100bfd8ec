"""Box conversions and overlaps. All functions accept any leading dimensions."""

from __future__ import annotations

import torch
from torch import Tensor

LOGIT_EPS = 1e-5


def cxcywh_to_xyxy(boxes: Tensor) -> Tensor:
    """Convert [..., 4] boxes from centre and size to corners."""
    centre, size = boxes.chunk(2, dim=-1)
    half = size * 0.5
    return torch.cat([centre - half, centre + half], dim=-1)


def xyxy_to_cxcywh(boxes: Tensor) -> Tensor:
    """Convert [..., 4] boxes from corners to centre and size."""
    low, high = boxes.chunk(2, dim=-1)
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
    # In chunks: the backward pass of every slice fills a tensor of full size with zeros.
    (low, high), (other_low, other_high) = first.chunk(2, dim=-1), second.chunk(2, dim=-1)
    overlap = torch.min(high, other_high) - torch.max(low, other_low)
    intersection = _product(overlap.clamp(min=0))
    union = _product(high - low) + _product(other_high - other_low) - intersection
    iou = _ratio(intersection, union)
    hull = torch.max(high, other_high) - torch.min(low, other_low)
    enclosing = _product(hull.clamp(min=0))
    return iou, iou - _ratio(enclosing - union, enclosing)


def area_xyxy(boxes: Tensor) -> Tensor:
    """Area of [..., 4] corner boxes, as a tensor of the leading shape."""
    low, high = boxes.chunk(2, dim=-1)
    return _product(high - low)


def _product(sides: Tensor) -> Tensor:
    # Tensor.prod would copy to the host in its backward, to look for zeros.
    width, height = sides.unbind(-1)
    return width * height


def _ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    # A masked denominator keeps the gradient finite where both are zero.
    positive = denominator > 0
    return torch.where(positive, numerator / torch.where(positive, denominator, 1.0), 0.0)
