"""Decoder with its heads: queries in, predictions of all layers out."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from msdetr.model.decoder_layer import DecoderLayer, OneToManySource
from msdetr.model.heads import BoxHead, ClassHead, refine
from msdetr.model.memory import Memory
from msdetr.model.queries import QueryGroup, blocks_of, concatenate
from msdetr.structures import Predictions


@dataclass(frozen=True)
class DecodedLayer:
    """What the queries have become after a decoder layer.

    Attributes:
        index: Of the layer, from 0.
        content: [B, Q, C] output of the layer.
        boxes: [B, Q, 4] boxes that the layer predicts, in 0..1.
        base: [B, Q, 2 or 4] what these were refined from.
        one_to_many: [B, Q', C] one-to-many features of the first Q' queries, or None.
    """

    index: int
    content: Tensor
    boxes: Tensor
    base: Tensor
    one_to_many: Tensor | None


@dataclass(frozen=True)
class DecodedGroup:
    """Predictions of all layers for the queries of one group.

    Attributes:
        one_to_one: By the heads of the layers.
        one_to_many: From the one-to-many branch, or None where it did not run.
    """

    one_to_one: Predictions
    one_to_many: Predictions | None


class Decoder(nn.Module):
    """Updates queries layer by layer and predicts classes and boxes after each.

    With iterative refinement every layer has heads of its own, and its boxes are the references
    of the next layer; without it all layers share one class and one box head and keep the first
    references.

    Args:
        layers: At least one layer, all with the same place for one-to-many features.
        class_head: Prototype of the class heads; copied.
        box_head: Prototype of the box heads; copied.
        iterative_refinement: Hand refined boxes from layer to layer.
        look_forward_twice: Let a layer's box loss also reach the previous layer's box head.
        first_size_bias: Bias of the first box head's width and height logits; for 2-d
            references, which carry no size.

    Source: Zhu et al., Deformable DETR, ICLR 2021, sections 4.2 and A.4; Zhang et al., DINO,
    ICLR 2023, section 3.5 (look forward twice).
    """

    def __init__(
        self,
        *,
        layers: Sequence[DecoderLayer],
        class_head: ClassHead,
        box_head: BoxHead,
        iterative_refinement: bool = True,
        look_forward_twice: bool = False,
        first_size_bias: float = 0.0,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.iterative_refinement = iterative_refinement
        self.look_forward_twice = look_forward_twice
        num_heads = len(layers) if iterative_refinement else 1
        self.class_heads = _copies(class_head, num_heads)
        self.box_heads = _copies(box_head, num_heads)
        cast(BoxHead, self.box_heads[0]).set_size_bias(first_size_bias)
        own_heads = layers[0].one_to_many is OneToManySource.LAYER_OUTPUT
        self.one_to_many_class_heads = _copies(class_head, num_heads) if own_heads else None

    def forward(
        self, groups: Sequence[QueryGroup], memory: Memory, *, with_one_to_many: bool = False
    ) -> tuple[DecodedGroup, ...]:
        """Decode the queries of all groups at once.

        Args:
            groups: One or several groups, together Q queries; those that one-to-many
                supervision is for come first.
            memory: What the queries look at.
            with_one_to_many: Run the one-to-many branch, if the layers have one.

        Returns:
            Predictions per group, in the same order.
        """
        num_many = sum(g.num_queries for g in groups if g.one_to_many) if with_one_to_many else 0
        one_to_one, one_to_many = _PredictionLists([], []), _PredictionLists([], [])
        for layer in self.iterate(groups, memory, num_one_to_many=num_many):
            one_to_one.append(self.classify(layer), layer.boxes)
            if layer.one_to_many is not None:
                one_to_many.append(*self._branch(layer, layer.one_to_many))
        return _divide(
            groups, one_to_one.stack(), one_to_many.stack() if one_to_many.logits else None
        )

    def iterate(
        self, groups: Sequence[QueryGroup], memory: Memory, *, num_one_to_many: int = 0
    ) -> Iterator[DecodedLayer]:
        """Update the queries layer by layer; training, exports and their check share this.

        Args:
            groups: One or several groups, together Q queries.
            memory: What the queries look at.
            num_one_to_many: Queries, the first ones, whose one-to-many features are computed.

        Yields:
            The layers' outputs in order. Classes are predicted by ``classify``, where wanted.
        """
        queries = concatenate(groups)
        blocks = blocks_of(groups)
        content, references = queries.content, queries.references
        # The boxes that predictions start from; they differ from the references, which only
        # attention uses, in what gradients pass.
        base = references
        for index, layer in enumerate(self.layers):
            output = layer(
                content,
                queries.position,
                memory.references_per_level(references),
                memory,
                blocks=blocks,
                num_one_to_many=num_one_to_many,
            )
            content = output.content
            delta = _pick(self.box_heads, index)(content)
            boxes = refine(delta, base)
            yield DecodedLayer(index, content, boxes, base, output.one_to_many)
            if self.iterative_refinement:
                base = self._next_base(delta, references, boxes)
                references = boxes.detach()

    def classify(self, layer: DecodedLayer) -> Tensor:
        """Return the [B, Q, K] class logits of a layer."""
        logits: Tensor = _pick(self.class_heads, layer.index)(layer.content)
        return logits

    def detect(self, groups: Sequence[QueryGroup], memory: Memory) -> tuple[Tensor, Tensor]:
        """Compute what detections are made of and nothing else, for exports and their check.

        Args:
            groups: The primary group.
            memory: What the queries look at.

        Returns:
            Logits [B, Q, K] and boxes [B, Q, 4] (cx, cy, w, h) in 0..1.
        """
        *_, last = self.iterate(groups, memory)
        return self.classify(last), last.boxes

    def _next_base(self, delta: Tensor, references: Tensor, boxes: Tensor) -> Tensor:
        # The same values, and without gradients there is nothing else to tell apart.
        if self.look_forward_twice and torch.is_grad_enabled():
            return refine(delta, references)
        return boxes.detach()

    def _branch(self, layer: DecodedLayer, features: Tensor) -> tuple[Tensor, Tensor]:
        num_queries = features.shape[1]
        if self.one_to_many_class_heads is not None:
            # The features are the layer's output and the box head is shared: same boxes.
            heads = self.one_to_many_class_heads
            return _pick(heads, layer.index)(features), layer.boxes[:, :num_queries]
        delta = _pick(self.box_heads, layer.index)(features)
        logits: Tensor = _pick(self.class_heads, layer.index)(features)
        return logits, refine(delta, layer.base[:, :num_queries])


@dataclass(frozen=True)
class _PredictionLists:
    logits: list[Tensor]
    boxes: list[Tensor]

    def append(self, logits: Tensor, boxes: Tensor) -> None:
        self.logits.append(logits)
        self.boxes.append(boxes)

    def stack(self) -> Predictions:
        return Predictions(torch.stack(self.logits), torch.stack(self.boxes))


def _copies(prototype: nn.Module, number: int) -> nn.ModuleList:
    return nn.ModuleList([copy.deepcopy(prototype) for _ in range(number)])


def _pick(heads: nn.ModuleList, layer: int) -> nn.Module:
    return heads[layer] if len(heads) > 1 else heads[0]


def _divide(
    groups: Sequence[QueryGroup], one_to_one: Predictions, one_to_many: Predictions | None
) -> tuple[DecodedGroup, ...]:
    if len(groups) == 1:
        return (DecodedGroup(one_to_one, one_to_many),)
    ones = _split(one_to_one, [group.num_queries for group in groups])
    sizes = [group.num_queries for group in groups if group.one_to_many]
    many = iter([] if one_to_many is None else _split(one_to_many, sizes))
    return tuple(
        DecodedGroup(one, next(many, None) if group.one_to_many else None)
        for group, one in zip(groups, ones, strict=True)
    )


def _split(predictions: Predictions, sizes: Sequence[int]) -> list[Predictions]:
    # Not slices, whose backward passes fill tensors of full size with zeros.
    logits = torch.split(predictions.logits, list(sizes), dim=2)
    boxes = torch.split(predictions.boxes_cxcywh, list(sizes), dim=2)
    return [Predictions(*parts) for parts in zip(logits, boxes, strict=True)]
