from __future__ import annotations

import torch
from torch import nn

from msdetr.model.layers import FeedForward, SelfAttention
from msdetr.model.query_blocks import QueryBlock, QueryBlocks


def test_self_attention_equals_torchs() -> None:
    ours = SelfAttention(width=16, heads=4)
    theirs = nn.MultiheadAttention(16, 4, batch_first=True)
    nn.init.normal_(ours.in_proj_bias)
    theirs.load_state_dict(ours.state_dict())
    content, position = torch.randn(2, 5, 16), torch.randn(2, 5, 16)
    where = content + position
    expected, _ = theirs(where, where, content)
    torch.testing.assert_close(ours(content, position), expected)


def test_blocks_decide_which_queries_see_which() -> None:
    module = SelfAttention(width=16, heads=4)
    content, position = torch.randn(1, 4, 16), torch.randn(1, 4, 16)
    blocks = QueryBlocks((QueryBlock(3), QueryBlock(1, sees_first=True)))
    apart = module(content, position, blocks)
    # The first three see only themselves, the fourth sees all.
    torch.testing.assert_close(apart[:, :3], module(content[:, :3], position[:, :3]))
    torch.testing.assert_close(apart[:, 3], module(content, position)[:, 3])


def test_feed_forward_formula() -> None:
    module = FeedForward(width=8, hidden_width=24, dropout=0.0)
    x = torch.randn(3, 8)
    expected = module.norm(x + module.linear2(module.linear1(x).clamp(min=0)))
    torch.testing.assert_close(module(x), expected)


def test_feed_forward_drops_inside_and_outside() -> None:
    module = FeedForward(width=8, hidden_width=24, dropout=0.5)
    calls: list[torch.Size] = []
    module.dropout.register_forward_hook(lambda _m, args, _out: calls.append(args[0].shape))
    module(torch.randn(3, 8))
    assert calls == [(3, 24), (3, 8)]


def test_only_the_bias_of_the_keys_has_no_gradient() -> None:
    """It changes nothing, so that its gradient would be nothing but rounding."""
    attention = SelfAttention(width=8, heads=2)
    content, position = torch.randn(2, 2, 5, 8)
    (attention(content, position) * torch.randn(2, 5, 8)).sum().backward()
    assert attention.in_proj_bias.grad is not None
    of_query, of_key, of_value = attention.in_proj_bias.grad.chunk(3)
    assert of_query.all()
    assert not of_key.any()
    assert of_value.all()
    before = attention(content, position)
    with torch.no_grad():
        attention.in_proj_bias[8:16] += torch.randn(8)
    torch.testing.assert_close(attention(content, position), before)
