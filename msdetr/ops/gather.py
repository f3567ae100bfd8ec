"""Multi-scale deformable attention in terms of row gathers: no ``grid_sample``, for exports."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def ms_deform_attn_gather(
    value: Tensor,
    spatial_shapes: Sequence[tuple[int, int]],
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> Tensor:
    """Gather the four cells around every sample and sum by weight.

    Arguments and result as in ``msdetr.ops.ms_deform_attn``; all tensors of one dtype.
    """
    images, _, heads, channels = value.shape
    queries = sampling_locations.shape[1]
    samples = sampling_locations.shape[3] * sampling_locations.shape[4]
    rows = value.transpose(1, 2)
    sizes = value.new_tensor([[width, height] for height, width in spatial_shapes])
    positions = sampling_locations.transpose(1, 2) * sizes[:, None] - 0.5
    low = positions.floor()
    fraction = positions - low
    starts = _level_starts(spatial_shapes, value.device)
    widths = sizes[:, 0, None].long()
    weights = attention_weights.transpose(1, 2)
    output = value.new_zeros(images, heads, queries, channels)
    for corner in ((0, 0), (1, 0), (0, 1), (1, 1)):
        step = value.new_tensor(corner)
        cell = low + step
        inside = ((cell >= 0) & (cell < sizes[:, None])).all(-1)
        bilinear = torch.where(step > 0, fraction, 1 - fraction).prod(-1) * inside
        x, y = cell.clamp(min=0).minimum(sizes[:, None] - 1).long().unbind(-1)
        index = (starts + y * widths + x).flatten(2)
        sampled = rows.gather(2, index[..., None].expand(-1, -1, -1, channels))
        sampled = sampled.view(images, heads, queries, samples, channels)
        output = output + (sampled * (bilinear * weights).flatten(3)[..., None]).sum(3)
    return output.transpose(1, 2).flatten(2)


def _level_starts(spatial_shapes: Sequence[tuple[int, int]], device: torch.device) -> Tensor:
    starts, cells = [], 0
    for height, width in spatial_shapes:
        starts.append([cells])
        cells += height * width
    return torch.tensor(starts, device=device)
