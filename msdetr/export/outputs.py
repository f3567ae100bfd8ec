"""Detections in pixels of the original images, from the outputs of an exported file."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from msdetr.model.detections import select_detections
from msdetr.structures import Detections


def detections_of_outputs(
    outputs: Mapping[str, Tensor], padding_mask: Tensor, original_hw: Tensor, limit: int
) -> Detections:
    """Turn outputs into detections.

    Args:
        outputs: ``logits`` and ``boxes`` of a raw file, else ``scores``, ``labels`` and ``boxes``.
        padding_mask: [B, H, W] bool, of the input; True on padding.
        original_hw: [B, 2] height and width before resizing, in pixels.
        limit: Detections per image to choose from raw outputs.
    """
    if "logits" in outputs:
        return select_detections(outputs["logits"], outputs["boxes"], original_hw, limit)
    height = (~padding_mask[:, :, 0]).sum(1)
    width = (~padding_mask[:, 0, :]).sum(1)
    scale = original_hw / torch.stack([height, width], dim=-1)
    boxes = outputs["boxes"] * scale.flip(-1).repeat(1, 2)[:, None]
    return Detections(boxes, outputs["scores"], outputs["labels"])
