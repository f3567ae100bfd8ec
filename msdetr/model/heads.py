"""Class and box heads."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from msdetr.boxes import LOGIT_EPS, safe_logit
from msdetr.model.precision import at_least_float32, full_precision

LOGIT_LIMIT = -math.log(LOGIT_EPS)
"""Largest logit of a box that another is refined from, as for boxes made by ``box_logits``."""


class ClassHead(nn.Linear):
    """Linear layer from C channels to K logits, starting at a low probability for every class.

    Args:
        width: C.
        num_classes: K.
        prior: Probability of every class at initialisation, in (0, 1).

    Source: Lin et al., Focal Loss, ICCV 2017, section 3.3 (prior).
    """

    def __init__(self, width: int, num_classes: int, *, prior: float = 0.01) -> None:
        super().__init__(width, num_classes)
        nn.init.constant_(self.bias, -math.log((1 - prior) / prior))

    def forward(self, features: Tensor) -> Tensor:
        """Map [..., C] to logits [..., K], in float32 or wider."""
        return at_least_float32(super().forward(features))


class BoxHead(nn.Module):
    """Three linear layers from C channels to the change of a box; starts at no change.

    Args:
        width: C.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            [nn.Linear(width, width), nn.Linear(width, width), nn.Linear(width, 4)]
        )
        last = cast(nn.Linear, self.layers[-1])
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Map [..., C] to deltas of the logits of (cx, cy, w, h) [..., 4], float32 or wider."""
        first, second, last = (cast(nn.Linear, layer) for layer in self.layers)
        with full_precision(features):
            hidden = functional.relu(first(features.to(first.weight.dtype)), inplace=True)
            return at_least_float32(last(functional.relu(second(hidden), inplace=True)))

    def set_size_bias(self, bias: float) -> None:
        """Set the bias of the width and height logits."""
        with torch.no_grad():
            cast(nn.Linear, self.layers[-1]).bias[2:].fill_(bias)


def box_logits(references: Tensor) -> Tensor:
    """Return what the deltas of a box head are added to: logits that the sigmoid makes boxes.

    Args:
        references: [..., 4] boxes or [..., 2] points in 0..1. A point says nothing about width
            and height, which then come from the delta alone.

    Returns:
        [..., 4] logits of (cx, cy, w, h), within about +-11.5.

    Source: Zhu et al., Deformable DETR, ICLR 2021, equation 6.
    """
    logits = safe_logit(references)
    return functional.pad(logits, (0, 2)) if references.shape[-1] == 2 else logits


def keep_off_border(logits: Tensor) -> Tensor:
    """Limit logits of boxes to those that ``box_logits`` would make of the boxes."""
    return logits.clamp(-LOGIT_LIMIT, LOGIT_LIMIT)


def classify_layers(heads: nn.ModuleList, features: Tensor) -> Tensor:
    """Apply the class heads of all layers at once.

    Args:
        heads: ``ClassHead`` of every layer, or one for all.
        features: [N, B, Q, C].

    Returns:
        [N, B, Q, K] logits, in float32 or wider.
    """
    if len(heads) == 1:
        return cast(Tensor, heads[0](features))
    return at_least_float32(_linear_per_layer((cast(nn.Linear, head) for head in heads), features))


def box_deltas_of_layers(heads: nn.ModuleList, features: Tensor) -> Tensor:
    """Apply the box heads of all layers at once.

    Args:
        heads: ``BoxHead`` of every layer, or one for all.
        features: [N, B, Q, C].

    Returns:
        [N, B, Q, 4] deltas, in float32 or wider.
    """
    if len(heads) == 1:
        return cast(Tensor, heads[0](features))
    stages = zip(*(cast(BoxHead, head).layers for head in heads), strict=True)
    first, second, last = ([cast(nn.Linear, linear) for linear in stage] for stage in stages)
    with full_precision(features):
        hidden = _linear_per_layer(first, features.to(first[0].weight.dtype)).relu_()
        hidden = _linear_per_layer(second, hidden).relu_()
        return at_least_float32(_linear_per_layer(last, hidden))


def _linear_per_layer(linears: Iterable[nn.Linear], features: Tensor) -> Tensor:
    """Multiply features [N, B, Q, C] by the linear layer of each decoder layer."""
    parameters = [(linear.weight, linear.bias) for linear in linears]
    weights, biases = (torch.stack(each) for each in zip(*parameters, strict=True))
    output = torch.baddbmm(biases[:, None], features.flatten(1, 2), weights.transpose(1, 2))
    return torch.unflatten(output, 1, features.shape[1:3])
