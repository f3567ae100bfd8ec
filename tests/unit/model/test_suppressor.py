"""The suppressor: who sees whom, and what passes."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from msdetr.model import LayerSizes, Suppressor
from msdetr.model.suppressor import SuppressorAttention, more_confident

WIDTH, HEADS, LEARNED = 32, 4, 3


def make(*, relation: bool = True, learned_keys: int = LEARNED) -> Suppressor:
    sizes = LayerSizes(width=WIDTH, heads=HEADS, levels=1, points=1, ffn_width=16, dropout=0.0)
    suppressor = Suppressor(sizes, learned_keys=learned_keys, relation=relation)
    with torch.no_grad():
        for parameter in suppressor.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return suppressor


def draw(num_queries: int = 6) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    content, position = torch.randn(2, 2, num_queries, WIDTH)
    boxes = torch.rand(2, num_queries, 4) * 0.4 + 0.2
    return content, position, boxes, torch.randn(2, num_queries, 5)


def test_queries_see_strictly_more_confident_ones() -> None:
    # Confidences 2, 1, 2, 3: the highest logit, wherever it is, class 0 included.
    logits = torch.tensor([[[2.0, -1], [0, 1], [-5, 2], [3, 0]]])
    assert more_confident(logits)[0].tolist() == [
        [False, False, False, True],
        [True, False, True, True],
        [False, False, False, True],
        [False, False, False, False],
    ]


@pytest.mark.parametrize("relation", [True, False])
def test_hidden_pairs_weigh_nothing_and_rows_add_up_to_one(relation: bool) -> None:
    suppressor = make(relation=relation)
    content, position, boxes, logits = draw()
    visible = more_confident(logits)
    weights = suppressor.attention.weights(content, position, boxes, visible)
    assert weights.shape == (2, HEADS, 6, 6 + LEARNED)
    hidden = ~visible[:, None].expand(-1, HEADS, -1, -1)
    assert not weights[..., :6][hidden].any()
    assert (weights[..., :6][~hidden] > 0).all()
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, HEADS, 6))


@pytest.mark.parametrize("relation", [True, False])
def test_the_output_follows_from_the_weights(relation: bool) -> None:
    attention = make(relation=relation).attention
    content, position, boxes, logits = draw()
    visible = more_confident(logits)
    values = torch.cat([content, attention.learned_values.expand(2, -1, -1)], dim=1)
    projected = torch.nn.functional.linear(
        values, attention.in_proj_weight[2 * WIDTH :], attention.in_proj_bias[2 * WIDTH :]
    )
    of_heads = projected.view(2, -1, HEADS, WIDTH // HEADS).transpose(1, 2)
    weights = attention.weights(content, position, boxes, visible)
    expected = attention.out_proj((weights @ of_heads).transpose(1, 2).flatten(2))
    torch.testing.assert_close(attention(content, position, boxes, visible), expected)


def test_less_confident_queries_change_nothing() -> None:
    suppressor = make()
    content, position, boxes, logits = draw()
    order = logits.amax(-1).argsort(dim=-1, descending=True)
    before = suppressor(content, position, boxes, logits)
    for image in range(2):
        content[image, order[image, 3:]] += 1.0
        boxes[image, order[image, 3:]] *= 0.5
    after = suppressor(content, position, boxes, logits)
    for image in range(2):
        kept = order[image, :3]
        torch.testing.assert_close(after[image, kept], before[image, kept])
        others = order[image, 3:]
        assert not torch.allclose(after[image, others], before[image, others])


def test_equals_see_learned_keys_alone() -> None:
    suppressor = make(learned_keys=1)
    content, position, boxes, logits = draw()
    visible = more_confident(torch.zeros_like(logits))
    weights = suppressor.attention.weights(content, position, boxes, visible)
    torch.testing.assert_close(weights[..., -1], torch.ones(2, HEADS, 6))
    assert suppressor(content, position, boxes, torch.zeros_like(logits)).isfinite().all()


def test_gradients_reach_content_but_neither_boxes_nor_confidence() -> None:
    suppressor, inputs = make(), draw()
    for tensor in inputs:
        tensor.requires_grad_()
    output = suppressor(*inputs)
    slopes = torch.autograd.grad(output.square().sum(), inputs, allow_unused=True)
    content, position, boxes, logits = slopes
    assert content is not None
    assert content.any()
    assert position is None
    assert boxes is None
    assert logits is None


def test_position_counts_without_relation_only() -> None:
    content, position, boxes, logits = draw()
    for relation in (True, False):
        suppressor = make(relation=relation)
        same = torch.equal(
            suppressor(content, position, boxes, logits),
            suppressor(content, position + 1.0, boxes, logits),
        )
        assert same is relation


def test_learned_keys_weigh_like_one_at_first() -> None:
    attention = SuppressorAttention(width=WIDTH, heads=HEADS, learned_keys=7, relation=True)
    assert attention.learned_bias is not None
    torch.testing.assert_close(
        attention.learned_bias.data, torch.full((HEADS, 1, 7), -math.log(7.0))
    )


def test_queries_have_no_order() -> None:
    suppressor, inputs = make(), draw()
    order = torch.randperm(6)
    permuted = suppressor(*(tensor[:, order] for tensor in inputs))
    torch.testing.assert_close(permuted, suppressor(*inputs)[:, order])


def test_relations_are_not_kept_for_the_backward_pass() -> None:
    num_queries, kept = 300, 0

    def keep(tensor: Tensor) -> Tensor:
        nonlocal kept
        kept += tensor.nelement() * tensor.element_size()
        return tensor

    suppressor, inputs = make(), draw(num_queries)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        suppressor(*inputs)
    of_relations = 2 * num_queries**2 * 128 * 4
    assert 0 < kept < of_relations / 4
