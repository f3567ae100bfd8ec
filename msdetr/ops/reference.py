"""Multi-scale deformable attention in terms of ``grid_sample``: the oracle of every backend."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional


def ms_deform_attn_reference(
    value: Tensor,
    spatial_shapes: Sequence[tuple[int, int]],
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> Tensor:
    """Sample every level bilinearly and sum by weight; see ``msdetr.ops.ms_deform_attn``."""
    images, _, heads, channels = value.shape
    queries, points = sampling_locations.shape[1], sampling_locations.shape[4]
    per_level = torch.split(value, [h * w for h, w in spatial_shapes], dim=1)
    grids = 2 * sampling_locations - 1
    weights = attention_weights.permute(0, 2, 1, 3, 4).flatten(3).flatten(0, 1)[:, None]
    sampled = []
    for level, (height, width) in enumerate(spatial_shapes):
        maps = per_level[level].flatten(2).transpose(1, 2)
        maps = maps.reshape(images * heads, channels, height, width)
        grid = grids[:, :, :, level].transpose(1, 2).reshape(images * heads, queries, points, 2)
        sampled.append(
            functional.grid_sample(
                maps, grid, mode="bilinear", padding_mode="zeros", align_corners=False
            )
        )
    output = (torch.cat(sampled, dim=-1) * weights).sum(-1)
    return output.view(images, heads * channels, queries).transpose(1, 2).contiguous()
