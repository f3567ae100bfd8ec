"""Minimum-cost matching of many problems with one copy to the host."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# Stands for costs that are not finite: SciPy refuses those, and reporting a divergence is the
# losses' business. Finite costs are far smaller.
REFUSED_COST = 1e9


def solve_together(
    costs: Sequence[Tensor], counts: Sequence[Tensor], copies: Sequence[int] | None = None
) -> list[Tensor]:
    """Match targets to queries at least total cost, in every layer and image of every problem.

    All costs and counts reach the host in one copy, all results return in one.

    Args:
        costs: Per problem, [N, B, T, Q] float32; the shapes may differ between problems.
        counts: Per problem, [B] int64; only the first ``counts[b]`` targets of an image are
            matched.
        copies: Per problem, how often every target enters the matching; once by default.

    Returns:
        Per problem, [N, B, copies * T] int64 on the device of the costs: the query of each
        target, first copies of all targets first, or -1 for targets that have none (padding, or
        more targets than queries).
    """
    device = costs[0].device
    # Counts are below 2**24, so that float32 holds them exactly.
    parts = [part for pair in zip(counts, costs, strict=True) for part in pair]
    host = torch.cat([part.detach().float().flatten() for part in parts]).cpu()
    host.nan_to_num_(nan=REFUSED_COST, posinf=REFUSED_COST, neginf=-REFUSED_COST)
    queries, start = [], 0
    for cost, num_copies in zip(costs, copies or [1] * len(costs), strict=True):
        first = start + cost.shape[1]
        end = first + cost.numel()
        image_counts = host[start:first].long().tolist()
        queries.append(_solve(host[first:end].view(cost.shape).numpy(), image_counts, num_copies))
        start = end
    flat = torch.cat([query.flatten() for query in queries]).to(device, non_blocking=True)
    sizes = [query.numel() for query in queries]
    return [p.view(q.shape) for p, q in zip(torch.split(flat, sizes), queries, strict=True)]


def _solve(cost: NDArray[np.float32], counts: Sequence[int], copies: int) -> Tensor:
    # Takes a tenth as long to import as torch, and a detector at work never needs it.
    from scipy.optimize import linear_sum_assignment  # noqa: PLC0415

    num_layers, num_images, num_targets, _ = cost.shape
    queries = np.full((num_layers, num_images, copies, num_targets), -1, dtype=np.int64)
    for layer, image in np.ndindex(num_layers, num_images):
        count = counts[image]
        row, query = linear_sum_assignment(np.tile(cost[layer, image, :count], (copies, 1)))
        queries[layer, image, row // max(1, count), row % max(1, count)] = query
    return torch.from_numpy(queries).flatten(2)
