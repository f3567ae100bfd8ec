"""Turning per-target selections into assignment rows."""

from __future__ import annotations

import torch
from torch import Tensor

from msdetr.structures import Assignment


def rows_of_targets(query: Tensor, score: Tensor, valid: Tensor) -> Assignment:
    """Flatten the queries selected for every target into rows of a length known in advance.

    Args:
        query: [N, B, T, J] int64, J slots per target.
        score: [N, B, T, J] float.
        valid: [N, B, T, J] bool, False on unused slots.

    Returns:
        R = N * B * T * J rows, in that order.
    """
    ranges = [torch.arange(size, device=query.device) for size in query.shape]
    layer, image, target, _ = torch.meshgrid(ranges, indexing="ij")
    return Assignment(
        layer=layer.flatten(),
        image=image.flatten(),
        query=query.flatten(),
        target=target.flatten(),
        score=score.flatten(),
        valid=valid.flatten(),
    )
