"""The host side of the Hungarian matching."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor

from msdetr.assignment.solve import solve_together

shapes = st.tuples(*[st.integers(1, limit) for limit in (2, 2, 3, 5)])
costs = shapes.flatmap(
    lambda shape: arrays(np.float32, shape, elements=st.integers(-8, 8).map(np.float32))
)


def least_total(cost: Tensor) -> float:
    """Minimum over all ways of giving distinct queries to targets, [T, Q]."""
    if len(cost) > cost.shape[1]:
        cost = cost.T
    ways = permutations(range(cost.shape[1]), len(cost))
    return min(sum(cost[t, q].item() for t, q in enumerate(way)) for way in ways)


@given(cost=costs, data=st.data())
def test_pairs_are_one_to_one_complete_and_minimal(cost: np.ndarray, data: st.DataObject) -> None:
    num_images, num_targets, num_queries = cost.shape[1:]
    counts = [data.draw(st.integers(0, num_targets)) for _ in range(num_images)]
    (queries,) = solve_together([torch.from_numpy(cost)], [torch.tensor(counts)])
    for layer, image in np.ndindex(cost.shape[:2]):
        count, of_targets = counts[image], queries[layer, image]
        assert (of_targets[count:] == -1).all()
        matched = [(t, q) for t, q in enumerate(of_targets[:count].tolist()) if q >= 0]
        assert len({q for _, q in matched}) == len(matched) == min(count, num_queries)
        if count:
            part = torch.from_numpy(cost)[layer, image, :count]
            assert sum(part[t, q].item() for t, q in matched) == least_total(part)


def test_problems_of_different_shapes_do_not_mix() -> None:
    generator = torch.Generator().manual_seed(0)
    problems = [torch.rand(shape, generator=generator) for shape in ((3, 2, 4, 9), (1, 2, 2, 50))]
    counts = [torch.tensor([4, 1]), torch.tensor([0, 2])]
    together = solve_together(problems, counts)
    for problem, count, queries in zip(problems, counts, together, strict=True):
        (alone,) = solve_together([problem], [count])
        assert torch.equal(alone, queries)
        assert queries.dtype == torch.int64


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_costs_that_are_not_finite_do_not_stop_the_matching(bad: float) -> None:
    cost = torch.tensor([[[[bad, 1.0, 5.0], [1.0, bad, 2.0]]]])
    (queries,) = solve_together([cost], [torch.tensor([2])])
    expected = [0, 1] if bad == float("-inf") else [1, 0]
    assert queries.flatten().tolist() == expected


def test_everything_nan_still_matches_every_target() -> None:
    (queries,) = solve_together([torch.full((1, 1, 2, 3), torch.nan)], [torch.tensor([2])])
    assert len(set(queries.flatten().tolist())) == 2
