"""Every target several times in one matching."""

from __future__ import annotations

from collections import Counter
from itertools import permutations

import pytest
import torch
from torch import Tensor

from msdetr.assignment import HungarianAssigner, RepeatedHungarianAssigner
from msdetr.structures import Assignment, Predictions, Targets

WEIGHTS = {"class_weight": 2.0, "l1_weight": 5.0, "giou_weight": 2.0}


def draw(num_queries: int, counts: tuple[int, ...]) -> tuple[Predictions, Targets, Tensor]:
    generator = torch.Generator().manual_seed(7)
    shape = (2, len(counts), num_queries)
    logits = torch.randn(*shape, 3, generator=generator)
    boxes = 0.2 + 0.6 * torch.rand(*shape, 4, generator=generator)
    found = [0.2 + 0.6 * torch.rand(n, 4, generator=generator) for n in counts]
    labels = [torch.randint(3, (n,), generator=generator) for n in counts]
    return Predictions(logits, boxes), Targets.from_lists(found, labels), torch.rand(shape)


def pairs(rows: Assignment, layer: int, image: int) -> list[tuple[int, int]]:
    chosen = rows.valid & (rows.layer == layer) & (rows.image == image)
    return list(zip(rows.query[chosen].tolist(), rows.target[chosen].tolist(), strict=True))


@pytest.mark.parametrize("copies", [1, 2, 4])
def test_every_target_gets_its_copies_and_no_query_serves_twice(copies: int) -> None:
    predictions, targets, u = draw(20, (3, 0, 5))
    rows = RepeatedHungarianAssigner(**WEIGHTS, copies=copies).assign(predictions, targets, u)
    for layer in range(2):
        for image, count in enumerate((3, 0, 5)):
            found = pairs(rows, layer, image)
            assert Counter(t for _, t in found) == dict.fromkeys(range(count), copies)
            assert len({q for q, _ in found}) == len(found)


def test_the_total_cost_is_minimal_over_all_copies() -> None:
    predictions, targets, u = draw(5, (2,))
    assigner = RepeatedHungarianAssigner(**WEIGHTS, copies=2)
    cost = assigner.cost(predictions, targets)[0, 0]
    found = pairs(assigner.assign(predictions, targets, u), 0, 0)
    repeated = torch.cat([cost, cost])
    best = min(
        sum(repeated[i, q].item() for i, q in enumerate(way)) for way in permutations(range(5), 4)
    )
    assert sum(cost[t, q].item() for q, t in found) == pytest.approx(best)


def test_fewer_queries_than_copies_all_have_a_target() -> None:
    predictions, targets, u = draw(4, (3,))
    rows = RepeatedHungarianAssigner(**WEIGHTS, copies=6).assign(predictions, targets, u)
    assert sorted(q for q, _ in pairs(rows, 0, 0)) == [0, 1, 2, 3]


def test_one_copy_is_the_plain_matching() -> None:
    predictions, targets, u = draw(9, (3, 4))
    plain = HungarianAssigner(**WEIGHTS).assign(predictions, targets, u)
    repeated = RepeatedHungarianAssigner(**WEIGHTS, copies=1).assign(predictions, targets, u)
    for name in ("layer", "image", "query", "target", "valid", "score"):
        assert torch.equal(getattr(plain, name), getattr(repeated, name))
