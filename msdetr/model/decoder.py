"""Decoder with its heads: queries in, predictions of all layers out."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from msdetr.model.decoder_layer import DecoderLayer, OneToManySource
from msdetr.model.heads import (
    BoxHead,
    ClassHead,
    box_deltas_of_layers,
    box_logits,
    classify_layers,
    keep_off_border,
)
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
        base: [B, Q, 4] logits of what these were refined from.
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
        layers = list(self.iterate(groups, memory, num_one_to_many=num_many))
        contents = torch.stack([layer.content for layer in layers])
        boxes = torch.stack([layer.boxes for layer in layers])
        one_to_one = Predictions(classify_layers(self.class_heads, contents), boxes)
        return _divide(groups, one_to_one, self._branch(layers, boxes))

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
        logits = box_logits(references)
        # What predictions start from; it differs from the logits of the references, which only
        # attention uses, in what gradients pass.
        base = logits
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
            refined = delta + base
            boxes = refined.sigmoid()
            yield DecodedLayer(index, content, boxes, base, output.one_to_many)
            if self.iterative_refinement:
                base = self._next_base(delta, logits, refined)
                references, logits = boxes.detach(), keep_off_border(refined.detach())

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

    def _next_base(self, delta: Tensor, logits: Tensor, refined: Tensor) -> Tensor:
        # The same values, and without gradients there is nothing else to tell apart.
        if self.look_forward_twice and torch.is_grad_enabled():
            return keep_off_border(delta + logits)
        return keep_off_border(refined.detach())

    def _branch(self, layers: Sequence[DecodedLayer], boxes: Tensor) -> Predictions | None:
        """Predict from the one-to-many features of all layers, if they have any."""
        branches = [layer.one_to_many for layer in layers if layer.one_to_many is not None]
        if not branches:
            return None
        features = torch.stack(branches)
        num_queries = features.shape[2]
        if self.one_to_many_class_heads is not None:
            # The features are the layers' output and the box heads are shared: same boxes.
            logits = classify_layers(self.one_to_many_class_heads, features)
            return Predictions(logits, boxes[:, :, :num_queries])
        bases = torch.stack([layer.base[:, :num_queries] for layer in layers])
        refined = box_deltas_of_layers(self.box_heads, features) + bases
        return Predictions(classify_layers(self.class_heads, features), refined.sigmoid())


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
