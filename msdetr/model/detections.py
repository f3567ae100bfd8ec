"""Predictions of one layer turned into detections in pixels."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import batched_nms

from msdetr.boxes import cxcywh_to_xyxy
from msdetr.structures import Detections


def select_detections(
    logits: Tensor, boxes_cxcywh: Tensor, original_hw: Tensor, limit: int
) -> Detections:
    """Keep the pairs of query and class with the highest scores.

    Args:
        logits: [B, Q, K] float.
        boxes_cxcywh: [B, Q, 4] float in 0..1.
        original_hw: [B, 2] (height, width) of the original images, in pixels.
        limit: Detections per image; never more than Q * K.

    Returns:
        Detections by descending score, D = min(limit, Q * K) per image.
    """
    num_classes = logits.shape[-1]
    pairs = logits.sigmoid().flatten(1)
    scores, index = pairs.topk(min(limit, pairs.shape[1]), dim=1)
    query = index // num_classes
    boxes = cxcywh_to_xyxy(boxes_cxcywh).gather(1, query[..., None].expand(-1, -1, 4))
    sides = original_hw.flip(-1).to(boxes.dtype)
    return Detections(
        boxes * torch.cat([sides, sides], dim=-1)[:, None], scores, index % num_classes
    )


def suppress_duplicates(detections: Detections, iou_threshold: float) -> Detections:
    """Suppress overlapping detections of one class; off in the published models.

    Args:
        detections: Detections of B images.
        iou_threshold: Overlap in 0..1 above which the lower score of one class is suppressed.

    Returns:
        Detections of the same shape by descending score; suppressed ones have score zero.
    """
    scores = torch.zeros_like(detections.scores)
    for image in range(scores.shape[0]):
        kept = batched_nms(
            detections.boxes_xyxy_px[image],
            detections.scores[image],
            detections.labels[image],
            iou_threshold,
        )
        scores[image, kept] = detections.scores[image, kept]
    scores, order = scores.sort(dim=1, descending=True, stable=True)
    return Detections(
        detections.boxes_xyxy_px.gather(1, order[..., None].expand(-1, -1, 4)),
        scores,
        detections.labels.gather(1, order),
    )
