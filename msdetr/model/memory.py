"""Flattened feature levels, with the geometry that attention needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from msdetr.model.axes import Axes
from msdetr.structures import FeatureLevels


@dataclass(frozen=True)
class Memory:
    """Cells of all levels, from fine to coarse, row by row within a level.

    Attributes:
        features: [B, S, C] float.
        padding_mask: [B, S] bool, True on padding.
        spatial_shapes: (H_l, W_l) of every level, as Python ints.
        level_sizes: [L, 2] float32, (W_l, H_l) in cells.
        valid_ratios: [B, L, 2] float32 in (0, 1]: unpadded share of every level's (width, height).
        cell_centres: [B, S, 2] float32, centres of all cells, (x, y) relative to the unpadded
            image; above 1 on padding.
        axes: Rows and columns of all levels.
    """

    features: Tensor
    padding_mask: Tensor
    spatial_shapes: tuple[tuple[int, int], ...]
    level_sizes: Tensor
    valid_ratios: Tensor
    cell_centres: Tensor
    axes: Axes

    @classmethod
    def from_levels(cls, levels: FeatureLevels) -> Memory:
        """Flatten L maps [B, C, H_l, W_l] and their masks."""
        shapes = tuple((m.shape[-2], m.shape[-1]) for m in levels.maps)
        masks = levels.padding_masks
        level_sizes = _level_sizes(shapes, masks[0].device)
        valid_sizes = _valid_sizes(masks)
        axes = Axes.of(shapes, valid_sizes)
        return cls(
            features=torch.cat([m.flatten(2).transpose(1, 2) for m in levels.maps], dim=1),
            padding_mask=torch.cat([mask.flatten(1) for mask in masks], dim=1),
            spatial_shapes=shapes,
            level_sizes=level_sizes,
            valid_ratios=valid_sizes / level_sizes,
            cell_centres=_cell_centres(axes),
            axes=axes,
        )

    def with_features(self, features: Tensor) -> Memory:
        """Return the same cells with other features [B, S, C]."""
        return replace(self, features=features)

    def references_per_level(self, references: Tensor) -> Tensor:
        """Carry references over from the unpadded image to the padded map of every level.

        Args:
            references: [B, Q, 2] points or [B, Q, 4] boxes, relative to the unpadded image.

        Returns:
            [B, Q, L, 2 or 4], relative to the padded maps.
        """
        ratios = self.valid_ratios
        if references.shape[-1] == 4:
            ratios = torch.cat([ratios, ratios], dim=-1)
        return references[:, :, None] * ratios[:, None]


def _level_sizes(shapes: Sequence[tuple[int, int]], device: torch.device) -> Tensor:
    # Filled on the device: copying a list there would wait for the device.
    sides = [side for height, width in shapes for side in (width, height)]
    filled = [torch.full((), side, dtype=torch.float32, device=device) for side in sides]
    return torch.stack(filled).view(len(shapes), 2)


def _valid_sizes(padding_masks: Sequence[Tensor]) -> Tensor:
    """Count the unpadded columns and rows of every level: [B, L, 2] float32."""
    sides = [side for mask in padding_masks for side in (mask[:, 0], mask[:, :, 0])]
    counts = torch.stack([(~side).sum(1) for side in sides], dim=1)
    return torch.unflatten(counts, 1, (-1, 2)).to(torch.float32)


def _cell_centres(axes: Axes) -> Tensor:
    per_level = axes.spread(axes.centres / axes.valid)
    return torch.cat([torch.stack([x, y], dim=-1).flatten(1, 2) for y, x in per_level], dim=1)
