from __future__ import annotations

import pytest
import torch

from msdetr.model import DecoderLayer, LayerOrder, LayerSizes, OneToManySource
from msdetr.model.decoder_layer import LayerOutput
from msdetr.model.memory import Memory
from msdetr.structures import FeatureLevels

SELF_FIRST, CROSS_FIRST = LayerOrder.SELF_ATTENTION_FIRST, LayerOrder.CROSS_ATTENTION_FIRST


def layer(
    order: LayerOrder, source: OneToManySource, *, extra_ffn: bool = False, dropout: float = 0.0
) -> DecoderLayer:
    sizes = LayerSizes(width=32, heads=4, levels=4, points=2, ffn_width=48, dropout=dropout)
    return DecoderLayer(sizes, order=order, one_to_many=source, extra_ffn=extra_ffn)


class Inputs:
    """Content, position, references and memory of two images with five queries."""

    def __init__(self, levels: FeatureLevels) -> None:
        self.content, self.position = torch.randn(2, 5, 32), torch.randn(2, 5, 32)
        self.memory = Memory.from_levels(levels)
        self.references = self.memory.references_per_level(torch.rand(2, 5, 4))

    def run(self, module: DecoderLayer, *, with_one_to_many: bool = True) -> LayerOutput:
        output: LayerOutput = module(
            self.content,
            self.position,
            self.references,
            self.memory,
            num_one_to_many=self.content.shape[1] if with_one_to_many else 0,
        )
        return output


@pytest.fixture
def inputs(levels: FeatureLevels) -> Inputs:
    return Inputs(levels)


def by_hand(module: DecoderLayer, inputs: Inputs) -> tuple[torch.Tensor, torch.Tensor]:
    """Features after the first attention and after the layer, sub-layer by sub-layer."""

    def among_queries(x: torch.Tensor) -> torch.Tensor:
        attended = module.self_attention(x, inputs.position)
        return module.self_attention_norm(x + attended)  # type: ignore[no-any-return]

    def to_memory(x: torch.Tensor) -> torch.Tensor:
        query = x + inputs.position
        attended = module.cross_attention(query, inputs.references, inputs.memory)
        return module.cross_attention_norm(x + attended)  # type: ignore[no-any-return]

    steps = [among_queries, to_memory]
    if module.order is CROSS_FIRST:
        steps.reverse()
    first = steps[0](inputs.content)
    return first, module.ffn(steps[1](first))


@pytest.mark.parametrize("order", [SELF_FIRST, CROSS_FIRST])
def test_order_of_the_attentions(order: LayerOrder, inputs: Inputs) -> None:
    module = layer(order, OneToManySource.FIRST_ATTENTION)
    first, last = by_hand(module, inputs)
    output = inputs.run(module)
    torch.testing.assert_close(output.content, last)
    torch.testing.assert_close(output.one_to_many, first)


@pytest.mark.parametrize("order", [SELF_FIRST, CROSS_FIRST])
def test_extra_ffn_is_on_the_branch_only(order: LayerOrder, inputs: Inputs) -> None:
    module = layer(order, OneToManySource.FIRST_ATTENTION, extra_ffn=True)
    assert module.extra_ffn is not None
    first, last = by_hand(module, inputs)
    output = inputs.run(module)
    torch.testing.assert_close(output.content, last)
    torch.testing.assert_close(output.one_to_many, module.extra_ffn(first))


def test_branch_from_the_layer_output(inputs: Inputs) -> None:
    output = inputs.run(layer(SELF_FIRST, OneToManySource.LAYER_OUTPUT))
    assert output.one_to_many is output.content


def test_no_branch_where_there_is_none_or_none_is_asked_for(inputs: Inputs) -> None:
    assert inputs.run(layer(SELF_FIRST, OneToManySource.NONE)).one_to_many is None
    module = layer(CROSS_FIRST, OneToManySource.FIRST_ATTENTION, extra_ffn=True)
    assert inputs.run(module, with_one_to_many=False).one_to_many is None


def test_dropout_follows_every_attention(inputs: Inputs) -> None:
    module = layer(CROSS_FIRST, OneToManySource.NONE, dropout=0.5)
    dropped: list[torch.Size] = []
    module.dropout.register_forward_hook(lambda _m, args, _out: dropped.append(args[0].shape))
    inputs.run(module)
    assert dropped == [(2, 5, 32), (2, 5, 32)]
