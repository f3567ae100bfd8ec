"""Sine encodings of cells and of boxes."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def sine_position_encoding(padding_mask: Tensor, width: int, temperature: float) -> Tensor:
    """Encode where each cell of a level lies within the unpadded image.

    Padding lies at the right and bottom, so a cell's row alone decides its y features and its
    column alone its x features: each is computed once per row and column, not once per cell.

    Args:
        padding_mask: [B, H, W] bool, True on padding.
        width: C, a multiple of 4.
        temperature: Base of the wavelengths.

    Returns:
        [B, H * W, C] float32; the first C/2 features encode y, the others x.

    Source: Carion et al., DETR, ECCV 2020, section A.4.
    """
    images, height, columns = padding_mask.shape
    y = _sine(_normalized_count(padding_mask[:, :, 0]), width // 2, temperature)
    x = _sine(_normalized_count(padding_mask[:, 0, :]), width // 2, temperature)
    grid_shape = (images, height, columns, width // 2)
    encoding = torch.cat([y[:, :, None].expand(grid_shape), x[:, None].expand(grid_shape)], dim=-1)
    return encoding.flatten(1, 2)


def sine_box_embedding(boxes_cxcywh: Tensor, width: int, temperature: float) -> Tensor:
    """Embed the four coordinates of boxes, C/2 features each.

    Args:
        boxes_cxcywh: [..., 4] float32 in 0..1.
        width: C, a multiple of 4.
        temperature: Base of the wavelengths.

    Returns:
        [..., 2 * C] float32, in the order cx, cy, w, h.

    Source: Zhu et al., Deformable DETR, ICLR 2021, section A.4 (two-stage).
    """
    return _sine(boxes_cxcywh * (2 * math.pi), width // 2, temperature).flatten(-2)


def _normalized_count(padding: Tensor) -> Tensor:
    count = (~padding).cumsum(1, dtype=torch.float32)
    return (count - 0.5) / (count[:, -1:] + 1e-6) * (2 * math.pi)


def _sine(angle: Tensor, num_features: int, temperature: float) -> Tensor:
    # One frequency per pair of features: sine at the even, cosine at the odd one.
    pair = torch.arange(num_features // 2, device=angle.device, dtype=torch.float32)
    frequencies = temperature ** (pair * (-2 / num_features))
    phase = angle[..., None] * frequencies
    return torch.stack([phase.sin(), phase.cos()], dim=-1).flatten(-2)
