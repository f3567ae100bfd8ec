"""Class and box heads."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from msdetr.boxes import safe_logit
from msdetr.model.precision import at_least_float32, full_precision


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


def refine(delta: Tensor, references: Tensor) -> Tensor:
    """Move references by the deltas of a box head.

    Args:
        delta: [..., 4], changes of the logits of (cx, cy, w, h).
        references: [..., 4] boxes or [..., 2] points in 0..1. A point says nothing about width
            and height, which then come from the delta alone.

    Returns:
        [..., 4] boxes (cx, cy, w, h) in 0..1.

    Source: Zhu et al., Deformable DETR, ICLR 2021, equation 6.
    """
    logit = safe_logit(references)
    if references.shape[-1] == 2:
        logit = functional.pad(logit, (0, 2))
    return (delta + logit).sigmoid()
