"""A decoder whose layers learn from one-to-many pairs, and that ends with a suppressor."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor

from msdetr.model.decoder import DecodedGroup, DecodedLayer, Decoder
from msdetr.model.decoder_layer import DecoderLayer
from msdetr.model.heads import BoxHead, ClassHead
from msdetr.model.memory import Memory
from msdetr.model.precision import full_precision
from msdetr.model.queries import QueryGroup
from msdetr.model.suppressor import Suppressor
from msdetr.structures import Predictions


class SuppressingDecoder(Decoder):
    """Decoder layers for one-to-many predictions, then one that leaves one query per object.

    The one-to-one prediction, which is that of inference, has the suppressor's classes and the
    boxes of the layer before it.

    Args:
        layers: At least one layer, without one-to-many features of their own.
        class_head: Prototype of the class heads; copied.
        box_head: Prototype of the box heads; copied.
        suppressor: Runs after the last layer.
        own_class_head: Give the suppressor a class head; otherwise it shares the last layer's.
        look_forward_twice: Let a layer's box loss also reach the previous layer's box head.

    Source: *DETR with Masked Duplicate Suppressor*, arXiv 2605.23507.
    """

    def __init__(
        self,
        *,
        layers: Sequence[DecoderLayer],
        class_head: ClassHead,
        box_head: BoxHead,
        suppressor: Suppressor,
        own_class_head: bool = True,
        look_forward_twice: bool = False,
    ) -> None:
        super().__init__(
            layers=layers,
            class_head=class_head,
            box_head=box_head,
            look_forward_twice=look_forward_twice,
        )
        self.suppressor = suppressor
        self.suppressor_class_head = copy.deepcopy(class_head) if own_class_head else None

    def forward(
        self, groups: Sequence[QueryGroup], memory: Memory, *, with_one_to_many: bool = False
    ) -> tuple[DecodedGroup, ...]:
        """Decode the queries of the one group that there is.

        Args:
            groups: The primary group.
            memory: What the queries look at.
            with_one_to_many: Return the predictions of the layers, too.

        Returns:
            One one-to-one prediction, and N one-to-many predictions.
        """
        *before, last = self.iterate(groups, memory)
        last_logits = self._classify_precisely(last.content)
        logits = self._suppress(groups, last, last_logits)
        one_to_one = Predictions(logits[None], last.boxes.detach()[None])
        if not with_one_to_many:
            return (DecodedGroup(one_to_one, None),)
        one_to_many = Predictions(
            torch.stack([*(self.classify(layer) for layer in before), last_logits]),
            torch.stack([layer.boxes for layer in (*before, last)]),
        )
        return (DecodedGroup(one_to_one, one_to_many),)

    def detect(self, groups: Sequence[QueryGroup], memory: Memory) -> tuple[Tensor, Tensor]:
        """Compute the suppressor's logits [B, Q, K] and the last layer's boxes [B, Q, 4]."""
        *_, last = self.iterate(groups, memory)
        return self._suppress(groups, last, self._classify_precisely(last.content)), last.boxes

    def _suppress(
        self, groups: Sequence[QueryGroup], last: DecodedLayer, last_logits: Tensor
    ) -> Tensor:
        (group,) = groups
        content = self.suppressor(last.content, group.position, last.boxes, last_logits)
        if self.suppressor_class_head is None:
            return self._classify_precisely(content)
        logits: Tensor = self.suppressor_class_head(content)
        return logits

    def _classify_precisely(self, content: Tensor) -> Tensor:
        """Apply the last layer's class head to content [B, Q, C], out of autocast."""
        # Half precision would make many queries equally confident, and these see no duplicates.
        head = self.class_heads[-1]
        with full_precision(content):
            logits: Tensor = head(content.to(next(head.parameters()).dtype))
            return logits
