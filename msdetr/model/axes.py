"""Rows and columns of all feature levels in one line, so that each is computed on once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Axes:
    """The rows of every level, then the columns of every level, A together.

    Padding lies at the right and bottom, so a cell's row alone decides where it lies vertically
    and its column alone where horizontally.

    Attributes:
        spatial_shapes: (H_l, W_l) of every level; A is the sum of all sides.
        centres: [A] float32, in cells from the upper or left edge of the level: 0.5, 1.5, ...
        valid: [B, A] float32, height or width of the level's unpadded part, in cells.
    """

    spatial_shapes: tuple[tuple[int, int], ...]
    centres: Tensor
    valid: Tensor

    @classmethod
    def of(cls, spatial_shapes: Sequence[tuple[int, int]], valid_sizes: Tensor) -> Axes:
        """Line up the axes of levels with unpadded parts [B, L, 2] (width, height)."""
        heights, widths = zip(*spatial_shapes, strict=True)
        sides = (*heights, *widths)
        numbers = [torch.arange(side, device=valid_sizes.device) for side in sides]
        # [B, 2 L], heights first.
        extents = valid_sizes.flip(-1).transpose(1, 2).flatten(1)
        per_side = zip(torch.split(extents, 1, dim=1), sides, strict=True)
        return cls(
            spatial_shapes=tuple(spatial_shapes),
            centres=torch.cat(numbers).to(torch.float32) + 0.5,
            valid=torch.cat([extent.expand(-1, side) for extent, side in per_side], dim=1),
        )

    def spread(self, values: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Give every cell the values of its row and of its column.

        Args:
            values: [B, A, ...].

        Returns:
            For every level two views [B, H_l, W_l, ...]: of the rows, and of the columns.
        """
        heights, widths = zip(*self.spatial_shapes, strict=True)
        parts = torch.split(values, [*heights, *widths], dim=1)
        rows, columns = parts[: len(heights)], parts[len(heights) :]
        kept = [-1] * (values.ndim - 2)
        return [
            (
                of_rows[:, :, None].expand(-1, -1, width, *kept),
                of_columns[:, None].expand(-1, height, -1, *kept),
            )
            for of_rows, of_columns, height, width in zip(
                rows, columns, heights, widths, strict=True
            )
        ]
