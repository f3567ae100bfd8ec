"""Pairs and ranks as masks and numbers of all queries, for explanations."""

from __future__ import annotations

import torch
from torch import Tensor

from msdetr.structures import Assignment

_LOW_BITS = 32
_LOW_MASK = (1 << _LOW_BITS) - 1


def ranks_of(scores: Tensor) -> Tensor:
    """Rank queries by descending score, then lowest query.

    Args:
        scores: [..., Q] float.

    Returns:
        [..., Q] int64 from 1.
    """
    order = scores.sort(dim=-1, descending=True, stable=True).indices
    places = torch.arange(1, scores.shape[-1] + 1, device=scores.device).expand_as(order)
    return torch.empty_like(order).scatter_(-1, order, places)


def top_queries(scores: Tensor, k: int) -> Tensor:
    """List the best queries of every target; torch.topk alone leaves the order of ties open.

    Args:
        scores: [N, B, T, Q] float32, none negative but -inf.
        k: Maximum queries per target.

    Returns:
        [N, B, T, J] int64 by descending score, then lowest query, J = min(k, Q).
    """
    num_queries = scores.shape[-1]
    # Bits of floats that are not negative order like the floats; -inf comes below them all.
    high = scores.view(torch.int32).long() << _LOW_BITS
    keys = high + torch.arange(num_queries - 1, -1, -1, device=scores.device)
    best = keys.topk(min(k, num_queries), dim=-1).values
    return num_queries - 1 - (best & _LOW_MASK)


def mark_queries(queries: Tensor, num_queries: int) -> Tensor:
    """Mark listed queries.

    Args:
        queries: [..., J] int64; -1 marks nothing.
        num_queries: Q.

    Returns:
        [..., Q] bool.
    """
    index = torch.where(queries < 0, num_queries, queries)
    shape = (*queries.shape[:-1], num_queries + 1)
    marked = torch.zeros(shape, dtype=torch.bool, device=queries.device)
    return marked.scatter_(-1, index, value=True)[..., :num_queries]


def list_queries(paired: Tensor, ranks: Tensor) -> Tensor:
    """List the paired queries of every target by rank.

    Args:
        paired: [..., Q] bool.
        ranks: [..., Q] int64.

    Returns:
        [..., J] int64, J the maximum number of queries of a target, at least 1; -1 on unused slots.
    """
    num_queries = paired.shape[-1]
    order = torch.where(paired, ranks, num_queries + 1).sort(dim=-1).indices
    counts = paired.sum(dim=-1, keepdim=True)
    num_slots = max(1, int(counts.max())) if counts.numel() else 1
    slots = torch.arange(num_slots, device=paired.device)
    return torch.where(slots < counts, order[..., :num_slots], -1)


def mark_pairs(rows: Assignment, shape: tuple[int, int, int, int]) -> Tensor:
    """Mark the valid rows of an assignment.

    Args:
        rows: The assignment.
        shape: N, B, T, Q.

    Returns:
        [N, B, T, Q] bool.
    """
    num_layers, num_images, num_targets, num_queries = shape
    place = (rows.layer * num_images + rows.image) * num_targets + rows.target
    place = place * num_queries + rows.query
    size = num_layers * num_images * num_targets * num_queries
    marked = torch.zeros(size + 1, dtype=torch.bool, device=rows.query.device)
    marked[torch.where(rows.valid, place, size)] = True
    return marked[:size].view(shape)
