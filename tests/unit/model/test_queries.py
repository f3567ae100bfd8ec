from __future__ import annotations

from collections.abc import Callable
from typing import cast

import pytest
import torch
from torch import Tensor

from msdetr.model import BoxHead, ClassHead, LearnedQueries, TwoStageQueries
from msdetr.model.memory import Memory
from msdetr.model.position import sine_box_embedding
from msdetr.structures import FeatureLevels, Proposals


def source(num_queries: int = 5, **options: float) -> TwoStageQueries:
    class_head, box_head = ClassHead(32, 3), BoxHead(32)
    result = TwoStageQueries(
        width=32,
        num_queries=num_queries,
        class_head=class_head,
        box_head=box_head,
        **options,  # type: ignore[arg-type]
    )
    torch.nn.init.normal_(cast(torch.nn.Linear, result.box_head.layers[2]).weight, std=0.1)
    return result


@pytest.fixture
def memory(levels: FeatureLevels) -> Memory:
    return Memory.from_levels(levels)


def proposals(module: TwoStageQueries, memory: Memory) -> Proposals:
    found = module(memory).proposals
    assert isinstance(found, Proposals)
    return found


def test_anchor_of_a_cell(memory: Memory) -> None:
    anchors = proposals(source(proposal_scale=0.1), memory).anchors_cxcywh
    expected = torch.tensor([2.5 / 12, 3.5 / 8, 0.1, 0.1])
    torch.testing.assert_close(anchors[0, 3 * 12 + 2], expected)
    second_level = torch.tensor([1.5 / 6, 0.5 / 4, 0.2, 0.2])
    torch.testing.assert_close(anchors[0, 144 + 1], second_level)


def test_padding_and_boxes_beyond_the_margin_are_all_ones(memory: Memory) -> None:
    # Sides on the last level: 0.15 * 8 > 0.99.
    found = proposals(source(proposal_scale=0.15), memory)
    outside = memory.padding_mask.clone()
    outside[:, -4:] = True
    assert (found.anchors_cxcywh[outside] == 1).all()
    assert (found.boxes_cxcywh[outside] == 1).all()
    assert (found.anchors_cxcywh[~outside] < 1).all()
    # Zeroed memory: all of them predict the same classes.
    assert (found.logits[outside] == found.logits[outside][0]).all()


def test_centres_near_the_border_are_invalid(
    make_levels: Callable[..., FeatureLevels],
) -> None:
    wide = make_levels([[(2, 60), (1, 30)]], [(2, 60), (1, 30)])
    anchors = proposals(source(1), Memory.from_levels(wide)).anchors_cxcywh[0, :60]
    # The first and the last centre of 60, at 0.5 / 60, lie within 0.01 of the border.
    assert (anchors[[0, -1]] == 1).all()
    assert (anchors[1:-1] < 1).all()


def test_proposals_start_at_their_anchors(memory: Memory) -> None:
    module = source()
    torch.nn.init.zeros_(cast(torch.nn.Linear, module.box_head.layers[2]).weight)
    found = proposals(module, memory)
    torch.testing.assert_close(found.boxes_cxcywh, found.anchors_cxcywh)


def test_best_cells_by_class_zero_become_queries(memory: Memory) -> None:
    group = source(7)(memory)
    found = group.proposals
    assert found is not None
    for image in range(2):
        best = found.logits[image, :, 0].argsort(descending=True)[:7]
        torch.testing.assert_close(group.references[image], found.boxes_cxcywh[image, best])


def test_position_then_content_of_the_embedding(memory: Memory) -> None:
    module = source()
    group = module(memory)
    embedding = sine_box_embedding(group.references, 32, 10000.0)
    both = module.query_norm(module.query_proj(embedding))
    torch.testing.assert_close(group.position, both[..., :32])
    torch.testing.assert_close(group.content, both[..., 32:])


def test_mixed_selection_learns_the_content_only(memory: Memory) -> None:
    module = source(mixed_selection=True)
    group = module(memory)
    assert module.content is not None
    assert (group.content == module.content.weight).all()
    assert not torch.equal(group.position[0], group.position[1])


def test_queries_are_cut_from_the_proposals_graph(memory: Memory) -> None:
    module = source()
    group = module(memory)
    total: Tensor = group.references.sum() + group.position.sum() + group.content.sum()
    torch.autograd.backward(total)
    assert not group.references.requires_grad
    assert all(parameter.grad is None for parameter in module.box_head.parameters())
    assert module.query_proj.weight.grad is not None


def test_heads_are_copies_of_the_prototypes() -> None:
    class_head = ClassHead(32, 3)
    module = TwoStageQueries(width=32, num_queries=1, class_head=class_head, box_head=BoxHead(32))
    assert torch.equal(module.class_head.weight, class_head.weight)
    assert module.class_head.weight is not class_head.weight


def test_learned_queries_put_the_position_first(memory: Memory) -> None:
    module = LearnedQueries(width=32, num_queries=5)
    group = module(memory)
    assert group.proposals is None
    assert (group.position == module.embedding.weight[:, :32]).all()
    assert (group.content == module.embedding.weight[:, 32:]).all()
    expected = module.reference_points(module.embedding.weight[:, :32]).sigmoid()
    torch.testing.assert_close(group.references, expected.expand(2, 5, 2))
