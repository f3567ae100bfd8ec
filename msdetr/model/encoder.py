"""Deformable transformer encoder."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from msdetr.model.axes import Axes
from msdetr.model.deformable_attention import DeformableAttention
from msdetr.model.layers import FeedForward, LayerSizes
from msdetr.model.memory import Memory
from msdetr.model.position import sine_position_encoding
from msdetr.structures import FeatureLevels


class EncoderLayer(nn.Module):
    """Deformable self-attention of the cells, then a feed-forward network.

    Args:
        sizes: Of attention and feed-forward network.
    """

    def __init__(self, sizes: LayerSizes) -> None:
        super().__init__()
        self.attention = DeformableAttention(
            width=sizes.width, heads=sizes.heads, levels=sizes.levels, points=sizes.points
        )
        self.attention_norm = nn.LayerNorm(sizes.width)
        self.ffn = FeedForward.of(sizes)
        self.dropout = nn.Dropout(sizes.dropout)

    def forward(
        self, features: Tensor, position: Tensor, references: Tensor, cells: Memory
    ) -> Tensor:
        """Update the cells.

        Args:
            features: [B, S, C].
            position: [B, S, C].
            references: [B, S, L, 2], every cell's centre on every padded level.
            cells: Geometry of the cells; its features are not read.

        Returns:
            [B, S, C].
        """
        attended = self.attention(features + position, references, cells.with_features(features))
        output: Tensor = self.ffn(self.attention_norm(features + self.dropout(attended)))
        return output


class Encoder(nn.Module):
    """Lets the cells of all levels exchange information.

    Args:
        layers: At least one layer.
        width: C, a multiple of 4.
        levels: L.
        temperature: Base of the position encoding's wavelengths.
        checkpoint_layers: Recompute layers in the backward pass instead of keeping their
            activations.

    Source: Zhu et al., Deformable DETR, ICLR 2021, section 4.2.
    """

    def __init__(
        self,
        *,
        layers: Sequence[EncoderLayer],
        width: int,
        levels: int,
        temperature: float = 10000.0,
        checkpoint_layers: bool = False,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.level_embed = nn.Parameter(torch.empty(levels, width))
        self.temperature = temperature
        self.checkpoint_layers = checkpoint_layers
        nn.init.normal_(self.level_embed)

    def forward(self, levels: FeatureLevels) -> Memory:
        """Encode L maps [B, C, H_l, W_l] into a memory of S cells."""
        cells = Memory.from_levels(levels)
        position = self._position(cells.axes).to(cells.features.dtype)
        references = cells.references_per_level(cells.cell_centres)
        recompute = self.checkpoint_layers and torch.is_grad_enabled()
        features = cells.features
        for layer in self.layers:
            if recompute:
                features = checkpoint(
                    layer, features, position, references, cells, use_reentrant=False
                )
            else:
                features = layer(features, position, references, cells)
        return cells.with_features(features)

    def _position(self, axes: Axes) -> Tensor:
        encodings = sine_position_encoding(axes, self.level_embed.shape[1], self.temperature)
        embeddings = self.level_embed.unbind()
        return torch.cat(
            [encoding + own for encoding, own in zip(encodings, embeddings, strict=True)], dim=1
        )
