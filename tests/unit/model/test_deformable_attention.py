from __future__ import annotations

import math
from dataclasses import replace
from unittest.mock import patch

import pytest
import torch
from torch import Tensor

from msdetr.model import deformable_attention
from msdetr.model.deformable_attention import DeformableAttention
from msdetr.model.memory import Memory
from msdetr.ops import ms_deform_attn
from msdetr.structures import FeatureLevels


def attention(heads: int = 4, points: int = 3) -> DeformableAttention:
    return DeformableAttention(width=32, heads=heads, levels=4, points=points)


@pytest.mark.parametrize("heads", [4, 8, 1])
def test_offsets_start_in_one_direction_per_head(heads: int) -> None:
    module = attention(heads=heads)
    bias = module.sampling_offsets.bias.view(heads, 4, 3, 2)
    for head in range(heads):
        angle = 2 * math.pi * head / heads
        unit = max(abs(math.cos(angle)), abs(math.sin(angle)))
        for point in range(3):
            x, y = ((point + 1) * f(angle) / unit for f in (math.cos, math.sin))
            for level in range(4):
                assert bias[head, level, point].tolist() == pytest.approx([x, y], abs=1e-5)


def test_other_initial_values() -> None:
    module = attention()
    zero = (
        module.sampling_offsets.weight,
        module.attention_weights.weight,
        module.attention_weights.bias,
        module.value_proj.bias,
        module.output_proj.bias,
    )
    assert all(not parameter.any() for parameter in zero)
    bound = math.sqrt(6 / (32 + 32))
    for projection in (module.value_proj, module.output_proj):
        assert 0.9 * bound < projection.weight.abs().max() <= bound


def locations(module: DeformableAttention, references: Tensor, memory: Memory) -> Tensor:
    with patch.object(deformable_attention, "ms_deform_attn", wraps=ms_deform_attn) as op:
        module(torch.zeros(2, references.shape[1], 32), references, memory)
    sampled: Tensor = op.call_args.args[2]
    return sampled


def test_offsets_from_points_are_in_cells(levels: FeatureLevels) -> None:
    module, memory = attention(), Memory.from_levels(levels)
    references = torch.rand(2, 1, 4, 2)
    moved = locations(module, references, memory) - references[:, :, None, :, None]
    # Head 0 looks along x: point p lies p + 1 cells of its level to the right.
    for level, (_, width) in enumerate(memory.spatial_shapes):
        expected = [[(p + 1) / width, 0.0] for p in range(3)]
        torch.testing.assert_close(moved[0, 0, 0, level], torch.tensor(expected), atol=1e-6, rtol=0)


def test_offsets_from_boxes_are_in_half_sizes(levels: FeatureLevels) -> None:
    module, memory = attention(), Memory.from_levels(levels)
    references = torch.rand(2, 1, 4, 4)
    moved = locations(module, references, memory) - references[:, :, None, :, None, :2]
    # Head 0 looks along x; its last point lies on the right edge of the box.
    torch.testing.assert_close(moved[:, :, 0, :, 2, 0], references[..., 2] / 2)
    torch.testing.assert_close(moved[:, :, 0, :, 0, 0], references[..., 2] / 6)


def test_padding_counts_as_zero(levels: FeatureLevels) -> None:
    module, memory = attention(), Memory.from_levels(levels)
    torch.nn.init.ones_(module.value_proj.bias)
    query, references = torch.randn(2, 5, 32), torch.rand(2, 5, 4, 2)
    noise = torch.randn_like(memory.features) * memory.padding_mask[..., None]
    changed = memory.with_features(memory.features + noise)
    torch.testing.assert_close(
        module(query, references, changed), module(query, references, memory)
    )
    unpadded = replace(memory, padding_mask=torch.zeros_like(memory.padding_mask))
    assert not torch.allclose(
        module(query, references, unpadded), module(query, references, memory)
    )


@pytest.mark.parametrize("points", [2, 4])
def test_weights_of_a_query_and_head_are_a_softmax(levels: FeatureLevels, points: int) -> None:
    module, memory = attention(points=points), Memory.from_levels(levels)
    torch.nn.init.normal_(module.attention_weights.weight)
    query = torch.randn(2, 5, 32)
    with patch.object(deformable_attention, "ms_deform_attn", wraps=ms_deform_attn) as op:
        module(query, torch.rand(2, 5, 4, 2), memory)
    logits = module.attention_weights(query).view(2, 5, 4, 4 * points)
    torch.testing.assert_close(op.call_args.args[3].flatten(3), logits.softmax(-1))
