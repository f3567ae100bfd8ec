"""Pairwise quantities between the queries and the targets of every layer and image.

All results are [N, B, T, Q]: the queries of one target lie next to each other, which is the
order that both assigners read them in.
"""

from __future__ import annotations

from torch import Tensor

from msdetr.boxes import cxcywh_to_xyxy, iou_and_giou

LOG_EPS = 1e-8


def logits_of_targets(logits: Tensor, labels: Tensor) -> Tensor:
    """Select each query's logit of each target's class.

    Args:
        logits: [N, B, Q, K] float.
        labels: [B, T] int64 in 0..K-1.

    Returns:
        [N, B, T, Q] float32.
    """
    num_layers, num_images, num_queries, _ = logits.shape
    index = labels[None, :, None].expand(num_layers, num_images, num_queries, -1)
    return logits.gather(3, index).float().transpose(2, 3).contiguous()


def focal_class_cost(logits: Tensor, alpha: float, gamma: float) -> Tensor:
    """Cost of giving a query to a target, from its logit of the target's class.

    Args:
        logits: [...] float.
        alpha: Weight of the positive part, in 0..1.
        gamma: Focusing exponent.

    Returns:
        [...] float: focal loss as a positive less the one as a negative; lower is better.

    Source: Zhu et al., Deformable DETR, ICLR 2021, appendix A.4 (focal matching cost).
    """
    p = logits.sigmoid()
    positive = alpha * (1 - p).pow(gamma) * -(p + LOG_EPS).log()
    negative = (1 - alpha) * p.pow(gamma) * -(1 - p + LOG_EPS).log()
    return positive - negative


def pairwise_l1(boxes: Tensor, target_boxes: Tensor) -> Tensor:
    """L1 distances, summed over the coordinates.

    Args:
        boxes: [N, B, Q, 4] (cx, cy, w, h) in 0..1.
        target_boxes: [B, T, 4], likewise.

    Returns:
        [N, B, T, Q] float32.
    """
    query, target = _planes(boxes), _planes(target_boxes)
    cx, cy, w, h = (query[..., None, :] - target[:, None, ..., None]).abs_().unbind()
    return (cx + cy).add_(w).add_(h)


def pairwise_giou(boxes: Tensor, target_boxes: Tensor) -> Tensor:
    """Generalised IoU of all pairs.

    Args:
        boxes: [N, B, Q, 4] (cx, cy, w, h) in 0..1.
        target_boxes: [B, T, 4], likewise.

    Returns:
        [N, B, T, Q] float32 in -1..1.
    """
    return iou_and_giou(*_corner_pairs(boxes, target_boxes))[1]


def pairwise_iou(boxes: Tensor, target_boxes: Tensor) -> Tensor:
    """IoU of all pairs.

    Args:
        boxes: [N, B, Q, 4] (cx, cy, w, h) in 0..1.
        target_boxes: [B, T, 4], likewise.

    Returns:
        [N, B, T, Q] float32 in 0..1.
    """
    return iou_and_giou(*_corner_pairs(boxes, target_boxes))[0]


def _planes(boxes: Tensor) -> Tensor:
    """Store one coordinate after another: rows of queries then take full vector registers."""
    return boxes.float().movedim(-1, 0).contiguous()


def _corner_pairs(boxes: Tensor, target_boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Broadcastable corners [N, B, 1, Q, 4] and [B, T, 1, 4], stored by coordinate."""
    query = _planes(cxcywh_to_xyxy(boxes.float())).movedim(0, -1)
    target = _planes(cxcywh_to_xyxy(target_boxes.float())).movedim(0, -1)
    return query[:, :, None], target[:, :, None]
