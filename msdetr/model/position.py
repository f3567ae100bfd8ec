"""Sine encodings of cells and of boxes."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from msdetr.model.axes import Axes


def sine_position_encoding(axes: Axes, width: int, temperature: float) -> list[Tensor]:
    """Encode where each cell of every level lies within the unpadded image.

    Features are computed once per row and column, not once per cell. Padding is where the last
    unpadded row or column is.

    Args:
        axes: Rows and columns of all levels.
        width: C, a multiple of 4.
        temperature: Base of the wavelengths.

    Returns:
        For every level [B, H_l * W_l, C] float32; the first C/2 features encode y, the others x.

    Source: Carion et al., DETR, ECCV 2020, section A.4.
    """
    centres = torch.minimum(axes.centres, axes.valid - 0.5)
    angles = centres / (axes.valid + 1e-6) * (2 * math.pi)
    waves = _sine(angles, width // 2, temperature)
    return [torch.cat([y, x], dim=-1).flatten(1, 2) for y, x in axes.spread(waves)]


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


def _sine(angle: Tensor, num_features: int, temperature: float) -> Tensor:
    # One frequency per pair of features: sine at the even, cosine at the odd one.
    pair = torch.arange(num_features // 2, device=angle.device, dtype=torch.float32)
    frequencies = temperature ** (pair * (-2 / num_features))
    phase = angle[..., None] * frequencies
    return torch.stack([phase.sin(), phase.cos()], dim=-1).flatten(-2)
