"""Decoder with its heads: queries in, predictions of all layers out."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from msdetr.model.decoder_layer import DecoderLayer, OneToManySource
from msdetr.model.heads import BoxHead, ClassHead, refine
from msdetr.model.memory import Memory
from msdetr.model.queries import QueryGroup
from msdetr.structures import Predictions


@dataclass(frozen=True)
class DecoderOutput:
    """Predictions of all layers.

    Attributes:
        one_to_one: Predictions for all queries, in the order of their groups.
        one_to_many: Likewise from the one-to-many branch, or None where it did not run.
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
        self,
        groups: Sequence[QueryGroup],
        memory: Memory,
        *,
        attention_mask: Tensor | None = None,
        with_one_to_many: bool = False,
    ) -> DecoderOutput:
        """Decode the queries of all groups at once.

        Args:
            groups: One or several groups, together Q queries.
            memory: What the queries look at.
            attention_mask: [Q, Q] bool, True where the row's query may look at the column's.
            with_one_to_many: Run the one-to-many branch, if the layers have one.
        """
        queries = _concatenate(groups)
        content, references = queries.content, queries.references
        # The boxes that predictions start from; they differ from the references, which only
        # attention uses, in what gradients pass.
        base = references
        one_to_one, one_to_many = _PredictionLists([], []), _PredictionLists([], [])
        for index, layer in enumerate(self.layers):
            output = layer(
                content,
                queries.position,
                memory.references_per_level(references),
                memory,
                attention_mask=attention_mask,
                with_one_to_many=with_one_to_many,
            )
            content = output.content
            delta = _pick(self.box_heads, index)(content)
            boxes = refine(delta, base)
            one_to_one.append(_pick(self.class_heads, index)(content), boxes)
            if output.one_to_many is not None:
                one_to_many.append(*self._branch(index, output.one_to_many, base, boxes))
            if self.iterative_refinement:
                base = refine(delta, references) if self.look_forward_twice else boxes.detach()
                references = boxes.detach()
        return DecoderOutput(
            one_to_one.stack(), one_to_many.stack() if one_to_many.logits else None
        )

    def _branch(
        self, index: int, features: Tensor, base: Tensor, boxes: Tensor
    ) -> tuple[Tensor, Tensor]:
        if self.one_to_many_class_heads is not None:
            # The features are the layer's output and the box head is shared: same boxes.
            return _pick(self.one_to_many_class_heads, index)(features), boxes
        delta = _pick(self.box_heads, index)(features)
        return _pick(self.class_heads, index)(features), refine(delta, base)


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


def _concatenate(groups: Sequence[QueryGroup]) -> QueryGroup:
    if len(groups) == 1:
        return groups[0]
    return QueryGroup(
        content=torch.cat([group.content for group in groups], dim=1),
        position=torch.cat([group.position for group in groups], dim=1),
        references=torch.cat([group.references for group in groups], dim=1),
    )
