"""Projection of backbone maps to feature levels of one width."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from msdetr.structures import FeatureLevels


class Neck(nn.Module):
    """Projects backbone maps to C channels and appends coarser levels.

    With fewer levels than maps the coarsest maps are used. With more, each further level is a
    3x3 stride-2 convolution: the first of the coarsest unprojected map, the others of the level
    before.

    Args:
        in_channels: Channels of the backbone maps, from fine to coarse.
        width: C, a multiple of 32.
        levels: L.

    Source: Zhu et al., Deformable DETR, ICLR 2021, section A.2.
    """

    def __init__(self, in_channels: Sequence[int], width: int, levels: int) -> None:
        super().__init__()
        used = list(in_channels)[-levels:]
        self.num_maps = len(used)
        extra = [used[-1], *[width] * levels][: levels - len(used)]
        convolutions = [
            *[nn.Conv2d(channels, width, kernel_size=1) for channels in used],
            *[nn.Conv2d(channels, width, 3, stride=2, padding=1) for channels in extra],
        ]
        for convolution in convolutions:
            nn.init.xavier_uniform_(convolution.weight)
            assert convolution.bias is not None
            nn.init.zeros_(convolution.bias)
        self.projections = nn.ModuleList(
            [nn.Sequential(convolution, _group_norm(width)) for convolution in convolutions]
        )

    def forward(self, maps: Sequence[Tensor], padding_mask: Tensor) -> FeatureLevels:
        """Build the feature levels.

        Args:
            maps: Backbone maps [B, C_i, H_i, W_i], from fine to coarse.
            padding_mask: [B, H, W] bool mask of the images, True on padding.

        Returns:
            L levels of C channels, with the image mask resized to each (nearest neighbour).
        """
        sources = list(maps)[-self.num_maps :]
        sources.append(sources[-1])
        levels: list[Tensor] = []
        for index, projection in enumerate(self.projections):
            levels.append(projection(sources[index] if index < len(sources) else levels[-1]))
        image_mask = padding_mask[:, None].to(torch.float32)
        masks = [functional.interpolate(image_mask, size=m.shape[-2:]) for m in levels]
        return FeatureLevels(tuple(levels), tuple(mask[:, 0] > 0.5 for mask in masks))

    def strides(self, backbone_strides: Sequence[int]) -> tuple[int, ...]:
        """Return the strides of the L levels in pixels, given those of the backbone maps."""
        used = list(backbone_strides)[-self.num_maps :]
        extra = len(self.projections) - self.num_maps
        return (*used, *(used[-1] * 2 ** (index + 1) for index in range(extra)))


def _group_norm(width: int) -> nn.GroupNorm:
    # A single channel's norm takes back the bias before it, whose gradient is then nothing but
    # rounding (which AdamW makes as large as any), and turns a map of one cell into zeros.
    return nn.GroupNorm(min(32, width // 2), width)
