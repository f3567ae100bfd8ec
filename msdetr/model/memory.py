"""Flattened feature levels, with the geometry that attention needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from msdetr.structures import FeatureLevels


@dataclass(frozen=True)
class Memory:
    """Cells of all levels, from fine to coarse, row by row within a level.

    Attributes:
        features: [B, S, C] float.
        padding_mask: [B, S] bool, True on padding.
        spatial_shapes: (H_l, W_l) of every level, as Python ints.
        level_sizes: [L, 2] float32, (W_l, H_l) in cells.
        valid_sizes: [B, L, 2] float32, (width, height) of the unpadded part, in cells.
    """

    features: Tensor
    padding_mask: Tensor
    spatial_shapes: tuple[tuple[int, int], ...]
    level_sizes: Tensor
    valid_sizes: Tensor

    @classmethod
    def from_levels(cls, levels: FeatureLevels) -> Memory:
        """Flatten L maps [B, C, H_l, W_l] and their masks."""
        shapes = tuple((m.shape[-2], m.shape[-1]) for m in levels.maps)
        masks = levels.padding_masks
        return cls(
            features=torch.cat([m.flatten(2).transpose(1, 2) for m in levels.maps], dim=1),
            padding_mask=torch.cat([mask.flatten(1) for mask in masks], dim=1),
            spatial_shapes=shapes,
            level_sizes=_level_sizes(shapes, masks[0].device),
            valid_sizes=torch.stack([_valid_size(mask) for mask in masks], dim=1),
        )

    def with_features(self, features: Tensor) -> Memory:
        """Return the same cells with other features [B, S, C]."""
        return replace(self, features=features)

    @property
    def valid_ratios(self) -> Tensor:
        """[B, L, 2] float32 in (0, 1]: unpadded share of every level's (width, height)."""
        return self.valid_sizes / self.level_sizes

    def cell_centres(self) -> Tensor:
        """Compute the centres of all cells, (x, y) relative to the unpadded image.

        Returns:
            [B, S, 2] float32; above 1 on padding.
        """
        device = self.valid_sizes.device
        centres = []
        for level, (height, width) in enumerate(self.spatial_shapes):
            x = torch.arange(width, device=device, dtype=torch.float32) + 0.5
            y = torch.arange(height, device=device, dtype=torch.float32) + 0.5
            grid = torch.stack([x.expand(height, width), y[:, None].expand(height, width)], dim=-1)
            centres.append(grid.view(1, height * width, 2) / self.valid_sizes[:, level, None])
        return torch.cat(centres, dim=1)

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


def _valid_size(padding_mask: Tensor) -> Tensor:
    width = (~padding_mask[:, 0, :]).sum(1)
    height = (~padding_mask[:, :, 0]).sum(1)
    return torch.stack([width, height], dim=-1).to(torch.float32)
