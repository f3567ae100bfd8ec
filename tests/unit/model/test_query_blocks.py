"""Attention within blocks against one attention with a mask."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from msdetr.model.query_blocks import QueryBlock, QueryBlocks

CASES = {
    "two blocks": (QueryBlock(3), QueryBlock(5)),
    "equal blocks": (QueryBlock(4, 3),),
    "an empty block": (QueryBlock(3), QueryBlock(0)),
    "blocks that see the first": (QueryBlock(3), QueryBlock(2, 4, sees_first=True)),
    "no such blocks": (QueryBlock(3), QueryBlock(0, 1, sees_first=True)),
    "all kinds": (QueryBlock(3, 2), QueryBlock(7), QueryBlock(2, 3, sees_first=True)),
}


def test_mask_is_the_literal_matrix() -> None:
    blocks = QueryBlocks((QueryBlock(2), QueryBlock(1), QueryBlock(1, 2, sees_first=True)))
    assert blocks.mask().int().tolist() == [
        [1, 1, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [0, 0, 1, 0, 0],
        [1, 1, 0, 1, 0],
        [1, 1, 0, 0, 1],
    ]


@pytest.mark.parametrize("name", CASES)
def test_attention_equals_that_with_the_mask(name: str) -> None:
    blocks = QueryBlocks(CASES[name])
    mask = blocks.mask()
    generator = torch.Generator().manual_seed(0)
    query, key, value = torch.randn(3, 2, 4, len(mask), 8, generator=generator).unbind()
    expected = scaled_dot_product_attention(query, key, value, mask)
    torch.testing.assert_close(blocks.attend(query, key, value), expected)


def test_what_is_hidden_gets_no_gradient() -> None:
    blocks = QueryBlocks(CASES["all kinds"])
    size = len(blocks.mask())
    key = torch.randn(1, 1, size, 4, requires_grad=True)
    blocks.attend(torch.randn(1, 1, size, 4), key, torch.randn(1, 1, size, 4))[
        ..., :3, :
    ].sum().backward()
    assert key.grad is not None
    assert key.grad[..., :3, :].abs().min() > 0
    assert not key.grad[..., 3:, :].any()
