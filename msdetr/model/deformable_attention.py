"""Multi-scale deformable attention as a layer."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from msdetr.model.memory import Memory
from msdetr.model.precision import at_least_float32
from msdetr.ops import ms_deform_attn


class DeformableAttention(nn.Module):
    """Attention of queries to a few sampled points of every feature level.

    Args:
        width: C, a multiple of ``heads``.
        heads: M.
        levels: L.
        points: P, samples per head and level.

    Attributes:
        backend: Backend of the sampling, as for ``msdetr.ops.ms_deform_attn``.

    Source: Zhu et al., Deformable DETR, ICLR 2021, section 4.1.
    """

    def __init__(self, *, width: int, heads: int, levels: int, points: int) -> None:
        super().__init__()
        self.heads, self.levels, self.points = heads, levels, points
        self.backend = "auto"
        self.sampling_offsets = nn.Linear(width, heads * levels * points * 2)
        self.attention_weights = nn.Linear(width, heads * levels * points)
        self.value_proj = nn.Linear(width, width)
        self.output_proj = nn.Linear(width, width)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start from uniform weights, with head m looking into direction 2*pi*m/M."""
        nn.init.zeros_(self.sampling_offsets.weight)
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(self._directions().flatten())
        nn.init.zeros_(self.attention_weights.weight)
        nn.init.zeros_(self.attention_weights.bias)
        for projection in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(projection.weight)
            nn.init.zeros_(projection.bias)

    def forward(self, query: Tensor, references: Tensor, memory: Memory) -> Tensor:
        """Attend to the memory around the references.

        Args:
            query: [B, Q, C].
            references: [B, Q, L, 2] points or [B, Q, L, 4] boxes, relative to the padded maps.
            memory: The cells; padding counts as zero.

        Returns:
            [B, Q, C].
        """
        images, queries, _ = query.shape
        value = self.value_proj(memory.features)
        # Multiplied, not filled: a fill with a mask that is broadcast runs element by element.
        value = value * ~memory.padding_mask[..., None]
        weights = self.attention_weights(query).view(images, queries, self.heads, -1)
        weights = _softmax(at_least_float32(weights))
        attended = ms_deform_attn(
            value.view(images, -1, self.heads, value.shape[-1] // self.heads),
            memory.spatial_shapes,
            self._locations(query, references, memory.level_sizes),
            weights.view(images, queries, self.heads, self.levels, self.points),
            backend=self.backend,
        )
        output: Tensor = self.output_proj(attended)
        return output

    def _locations(self, query: Tensor, references: Tensor, level_sizes: Tensor) -> Tensor:
        shape = (*query.shape[:2], self.heads, self.levels, self.points, 2)
        offsets = at_least_float32(self.sampling_offsets(query)).view(*shape[:3], -1)
        # Everything is spread over levels, points and x, y first: a broadcast along the short
        # last dimensions would run element by element.
        centres = self._spread(references[..., :2])
        if references.shape[-1] == 2:
            locations = centres + offsets / self._spread(level_sizes)
        else:
            locations = centres + offsets * self._spread(references[..., 2:] * (0.5 / self.points))
        return locations.view(shape)

    def _spread(self, per_level: Tensor) -> Tensor:
        """Repeat [..., L, 2] for every point: [..., 1, L * P * 2]."""
        repeated = per_level[..., None, :].expand(*per_level.shape[:-1], self.points, 2)
        return repeated.flatten(-3)[..., None, :]

    def _directions(self) -> Tensor:
        angles = torch.arange(self.heads, dtype=torch.float32) * (2 * math.pi / self.heads)
        direction = torch.stack([angles.cos(), angles.sin()], dim=-1)
        direction = direction / direction.abs().amax(-1, keepdim=True)
        distance = torch.arange(1, self.points + 1, dtype=torch.float32)[:, None]
        per_point = direction[:, None, None] * distance
        return per_point.expand(self.heads, self.levels, self.points, 2)


_REGISTER_WIDTH = 16


def _softmax(logits: Tensor) -> Tensor:
    """Softmax over the last dimension, the samples of a query and head."""
    if logits.device.type == "cpu" and logits.shape[-1] < _REGISTER_WIDTH:
        # Along rows that do not fill a vector register it runs number by number there.
        return logits.movedim(-1, 0).softmax(0).movedim(0, -1).contiguous()
    return logits.softmax(-1)
