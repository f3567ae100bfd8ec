"""Multi-scale deformable attention in terms of row gathers: no ``grid_sample``, for exports.

The shape of the computation is chosen for the runtimes that exports run in: whole rows are taken
by one-dimensional index (copies of D values, where gathering elements would look up each), heads
come one after another (which bounds the gathered rows in memory), and the sum over samples is a
matrix product.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


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
    rows = _ringed_rows(value, spatial_shapes)
    corners = _find_corners(sampling_locations, attention_weights, spatial_shapes, rows.shape[1])
    samples = corners.index.shape[-1]
    outputs = []
    for head in range(heads):
        cells = rows[:, :, head].reshape(-1, channels)
        sampled = cells.index_select(0, corners.index[head].flatten())
        weights = corners.weight[head].reshape(images * queries, 1, samples)
        outputs.append(weights @ sampled.view(images * queries, samples, channels))
    return torch.cat(outputs, dim=-1).view(images, queries, heads * channels)


@dataclass(frozen=True)
class _Corners:
    """Cells around all samples: 4 per sample, L * P samples per query.

    Attributes:
        index: [M, B, Q, L * P * 4] int32, rows of one head's cells of all images.
        weight: [M, B, Q, L * P * 4], bilinear times attention weight.
    """

    index: Tensor
    weight: Tensor


def _ringed_rows(value: Tensor, spatial_shapes: Sequence[tuple[int, int]]) -> Tensor:
    """Surround every level by zeros, so that no sample needs a mask; [B, S', M, D].

    One row and column before and two behind: a sample on the far edge looks at both.
    """
    heads, channels = value.shape[2:]
    levels = torch.split(value.flatten(2), [height * width for height, width in spatial_shapes], 1)
    ringed = [
        functional.pad(torch.unflatten(cells, 1, (height, width)), (0, 0, 1, 2, 1, 2))
        for cells, (height, width) in zip(levels, spatial_shapes, strict=True)
    ]
    rows = torch.cat([cells.flatten(1, 2) for cells in ringed], dim=1)
    return torch.unflatten(rows, 2, (heads, channels))


def _find_corners(
    locations: Tensor,
    attention_weights: Tensor,
    spatial_shapes: Sequence[tuple[int, int]],
    cells_per_image: int,
) -> _Corners:
    points = locations.shape[4]
    x, y = locations.flatten(3, 4).permute(2, 0, 1, 3, 4).unbind(-1)
    left, right_share = _split([width for _, width in spatial_shapes], x, points)
    top, lower_share = _split([height for height, _ in spatial_shapes], y, points)
    pitches = [width + 3 for _, width in spatial_shapes]
    starts = [
        sum((height + 3) * (width + 3) for height, width in spatial_shapes[:level])
        for level in range(len(spatial_shapes))
    ]
    pitch, start = _per_sample(pitches, left, points), _per_sample(starts, left, points)
    images = torch.arange(locations.shape[0], device=left.device, dtype=left.dtype)
    first = top * pitch + left + (start + images[:, None, None] * cells_per_image)
    index = torch.stack([first, first + 1, first + pitch, first + (pitch + 1)], dim=-1)
    weight = attention_weights.flatten(3).permute(2, 0, 1, 3)
    lower = weight * lower_share
    upper = weight - lower
    lower_right, upper_right = lower * right_share, upper * right_share
    weight = torch.stack(
        [upper - upper_right, upper_right, lower - lower_right, lower_right], dim=-1
    )
    return _Corners(index.flatten(3), weight.flatten(3))


def _split(sides: Sequence[int], relative: Tensor, points: int) -> tuple[Tensor, Tensor]:
    """Cell before each sample along one axis, counted from the ring, and the next one's share."""
    side = _per_sample(sides, relative, points)
    position = (relative * side + 0.5).clamp(min=0).minimum(side + 1)
    cell = position.floor()
    return cell.to(torch.int32), position - cell


def _per_sample(values: Sequence[int], like: Tensor, points: int) -> Tensor:
    """Repeat one value per level for its points; [L * P], dtype and device of ``like``."""
    # Filled, not copied from a list, which would make sizes constants of a traced graph.
    return torch.cat([like.new_full((points,), value) for value in values])
