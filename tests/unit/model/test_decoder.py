from __future__ import annotations

from collections.abc import Callable
from typing import cast

import pytest
import torch
from torch import Tensor, nn

from msdetr.model import BoxHead, Decoder, DetectionModel
from msdetr.model.decoder import DecodedGroup
from msdetr.model.memory import Memory
from msdetr.model.queries import QueryGroup
from msdetr.structures import FeatureLevels

Build = Callable[..., DetectionModel]


@pytest.fixture
def memory(levels: FeatureLevels) -> Memory:
    return Memory.from_levels(levels)


def group(num_queries: int, *, points: bool = False) -> QueryGroup:
    content, position = torch.randn(2, 2, num_queries, 32)
    _, other = torch.randn(2, 2, num_queries, 32)
    references = torch.rand(2, num_queries, 2 if points else 4) * 0.6 + 0.2
    return QueryGroup(content, position + other, references)


def part(queries: QueryGroup, rows: Tensor) -> QueryGroup:
    return QueryGroup(
        queries.content[:, rows], queries.position[:, rows], queries.references[:, rows]
    )


def last_layer(box_head: nn.Module) -> nn.Linear:
    return cast(nn.Linear, cast(BoxHead, box_head).layers[-1])


def assert_same_queries(whole: DecodedGroup, rows: Tensor, alone: DecodedGroup) -> None:
    for ours, theirs in (
        (whole.one_to_one, alone.one_to_one),
        (whole.one_to_many, alone.one_to_many),
    ):
        assert ours is not None
        assert theirs is not None
        torch.testing.assert_close(ours.logits[:, :, rows], theirs.logits)
        torch.testing.assert_close(ours.boxes_cxcywh[:, :, rows], theirs.boxes_cxcywh)


def test_queries_have_no_order(build_model: Build, memory: Memory) -> None:
    decoder, queries = build_model().decoder, group(7)
    order = torch.randperm(7)
    (whole,) = decoder([queries], memory, with_one_to_many=True)
    (permuted,) = decoder([part(queries, order)], memory, with_one_to_many=True)
    assert_same_queries(whole, order, permuted)


def test_groups_do_not_see_each_other(build_model: Build, memory: Memory) -> None:
    decoder, first, second = build_model().decoder, group(4), group(3)
    together = decoder([first, second], memory, with_one_to_many=True)
    alone = [decoder([g], memory, with_one_to_many=True)[0] for g in (first, second)]
    assert_same_queries(together[0], torch.arange(4), alone[0])
    assert_same_queries(together[1], torch.arange(3), alone[1])


def test_heads_are_copies_with_weights_of_their_own(build_model: Build) -> None:
    decoder = build_model(placement="b").decoder
    assert decoder.one_to_many_class_heads is not None
    heads = [*decoder.class_heads, *decoder.one_to_many_class_heads]
    assert len({id(head.weight) for head in heads}) == len(heads) == 4


def test_only_branches_from_the_layer_output_have_class_heads(build_model: Build) -> None:
    for placement in ("baseline", "c", "d"):
        assert build_model(placement=placement).decoder.one_to_many_class_heads is None


def test_branch_from_the_layer_output_shares_boxes_not_classes(
    build_model: Build, memory: Memory
) -> None:
    decoder = build_model(placement="b").decoder
    (output,) = decoder([group(4)], memory, with_one_to_many=True)
    assert output.one_to_many is not None
    assert torch.equal(output.one_to_many.boxes_cxcywh, output.one_to_one.boxes_cxcywh)
    assert not torch.allclose(output.one_to_many.logits, output.one_to_one.logits)


def test_refined_boxes_are_the_next_references(build_model: Build, memory: Memory) -> None:
    decoder, queries = build_model().decoder, group(4)
    before = decoder([queries], memory)[0].one_to_one.boxes_cxcywh
    nn.init.zeros_(last_layer(decoder.box_heads[1]).weight)
    nn.init.zeros_(last_layer(decoder.box_heads[1]).bias)
    after = decoder([queries], memory)[0].one_to_one.boxes_cxcywh
    # A second layer that changes nothing repeats the first one's boxes.
    torch.testing.assert_close(after[1], before[0])


def test_without_refinement_layers_share_heads_and_references(
    build_model: Build, memory: Memory
) -> None:
    decoder, queries = build_model(iterative_refinement=False).decoder, group(4)
    assert len(decoder.class_heads) == len(decoder.box_heads) == 1
    nn.init.zeros_(last_layer(decoder.box_heads[0]).weight)
    nn.init.zeros_(last_layer(decoder.box_heads[0]).bias)
    boxes = decoder([queries], memory)[0].one_to_one.boxes_cxcywh
    torch.testing.assert_close(boxes, queries.references.expand(2, -1, -1, -1))


@pytest.mark.parametrize("look_forward_twice", [False, True])
def test_look_forward_twice_reaches_the_previous_box_head(
    build_model: Build, memory: Memory, look_forward_twice: bool
) -> None:
    decoder = build_model(look_forward_twice=look_forward_twice).decoder
    boxes = decoder([group(4)], memory)[0].one_to_one.boxes_cxcywh
    torch.autograd.backward(boxes[1].sum())
    gradient = last_layer(decoder.box_heads[0]).weight.grad
    assert gradient is not None
    assert bool(gradient.any()) == look_forward_twice


def test_look_forward_twice_changes_gradients_only(build_model: Build, memory: Memory) -> None:
    decoder, queries = build_model().decoder, group(4)
    outputs = []
    for look_forward_twice in (False, True):
        decoder.look_forward_twice = look_forward_twice
        outputs.append(decoder([queries], memory)[0].one_to_one.boxes_cxcywh)
    assert torch.equal(*outputs)


def test_points_become_boxes_after_the_first_layer(build_model: Build, memory: Memory) -> None:
    decoder, queries = build_model(two_stage=False).decoder, group(4, points=True)
    seen: list[int] = []
    for layer in decoder.layers:
        layer.register_forward_pre_hook(lambda _m, args: seen.append(args[2].shape[-1]))
    decoder([queries], memory)
    decoder.iterative_refinement = False
    decoder([queries], memory)
    assert seen == [2, 4, 2, 2]


def test_first_box_head_carries_the_size_bias(build_model: Build) -> None:
    model = build_model(two_stage=False)
    fresh = Decoder(
        layers=list(model.decoder.layers),  # type: ignore[arg-type]
        class_head=model.decoder.class_heads[0],  # type: ignore[arg-type]
        box_head=BoxHead(32),
        first_size_bias=-2.0,
    )
    biases = [last_layer(head).bias.tolist() for head in fresh.box_heads]
    assert biases == [[0, 0, -2, -2], [0, 0, 0, 0]]


@pytest.mark.parametrize("placement", ["c", "d"])
def test_branch_does_not_touch_the_detections(
    build_model: Build, memory: Memory, placement: str
) -> None:
    decoder, queries = build_model(placement=placement).decoder, group(4)
    alone, both = (decoder([queries], memory, with_one_to_many=w)[0] for w in (False, True))
    assert alone.one_to_many is None
    assert both.one_to_many is not None
    assert torch.equal(alone.one_to_one.logits, both.one_to_one.logits)
    assert torch.equal(alone.one_to_one.boxes_cxcywh, both.one_to_one.boxes_cxcywh)
