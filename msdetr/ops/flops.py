"""Floating-point operations of multi-scale deformable attention, for torch's counter.

Importing this module teaches ``torch.utils.flop_counter`` the operator. As the counter does
elsewhere, a multiplication with its addition counts as two operations, and what is done once per
sample instead of once per channel (places, bilinear weights) does not count.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch.utils.flop_counter import register_flop_formula

_CORNERS = 4
_PER_PRODUCT = 2


@register_flop_formula(torch.ops.msdetr.ms_deform_attn)
def sampling_flops(
    value_shape: Sequence[int],
    _level_sizes: Sequence[int],
    _locations_shape: Sequence[int],
    weights_shape: Sequence[int],
    *_: object,
    **__: object,
) -> int:
    """Count the operations of the forward pass.

    Args:
        value_shape: B, S, M, D.
        weights_shape: B, Q, M, L, P.

    Returns:
        8 B Q M L P D: every sample adds four weighted cells of D channels.
    """
    return _PER_PRODUCT * _CORNERS * math.prod(weights_shape) * value_shape[-1]


@register_flop_formula(torch.ops.msdetr.ms_deform_attn_backward)
def sampling_backward_flops(
    _grad_shape: Sequence[int],
    value_shape: Sequence[int],
    level_sizes: Sequence[int],
    locations_shape: Sequence[int],
    weights_shape: Sequence[int],
    *_: object,
    **__: object,
) -> int:
    """Count the operations of the backward pass.

    Returns:
        Twice those of the forward pass: the gradient of the cells takes four products per sample
        and channel, and so do the four dot products that the other gradients are made of.
    """
    return 2 * sampling_flops(value_shape, level_sizes, locations_shape, weights_shape)
