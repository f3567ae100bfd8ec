"""Task-aligned assignment against its definition, pair by pair."""

from __future__ import annotations

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from msdetr.assignment.costs import logits_of_targets, pairwise_iou
from msdetr.assignment.task_aligned import TaskAlignedAssigner
from msdetr.structures import Predictions, Targets

LAYERS, CLASSES = 2, 3


def problem(seed: int, queries: int, counts: list[int], copies: int) -> tuple[Predictions, Targets]:
    chance = torch.Generator().manual_seed(seed)

    def boxes(*shape: int) -> torch.Tensor:
        centre = 0.3 + 0.4 * torch.rand(*shape, 2, generator=chance)
        return torch.cat([centre, 0.2 + 0.2 * torch.rand(*shape, 2, generator=chance)], dim=-1)

    labels = [torch.randint(CLASSES, (count,), generator=chance) for count in counts]
    targets = Targets.from_lists([boxes(count) for count in counts], labels)
    shape = (LAYERS, len(counts), queries)
    logits = torch.randn(*shape, CLASSES, generator=chance)
    found = boxes(*shape)
    return Predictions(logits.repeat(1, 1, copies, 1), found.repeat(1, 1, copies, 1)), targets


def slow_pairs(
    rule: TaskAlignedAssigner, predictions: Predictions, targets: Targets
) -> set[tuple[int, ...]]:
    """The definition, without tensors of several images."""
    iou = pairwise_iou(predictions.boxes_cxcywh, targets.boxes_cxcywh)
    # All at once, as the assigner does: vectors round otherwise than what is left over of them, and
    # copies of a query would no longer tie.
    probability = logits_of_targets(predictions.logits, targets.labels).sigmoid()
    scores = probability.pow(rule.class_power) * iou.pow(rule.iou_power)
    num_queries, pairs = iou.shape[3], set()
    for n in range(LAYERS):
        for b, count in enumerate(targets.counts.tolist()):
            wanted: dict[int, list[int]] = {}
            for t in range(count):
                score = scores[n, b, t].tolist()
                order = sorted(range(num_queries), key=lambda q: (-score[q], q))
                for q in order[: rule.k]:
                    if score[q] > 0:
                        wanted.setdefault(q, []).append(t)
            for q, rivals in wanted.items():
                pairs.add((n, b, min(rivals, key=lambda t: (-float(iou[n, b, t, q]), t)), q))
    return pairs


@example(seed=554, queries=7, counts=[3], copies=2, k=5)
@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    queries=st.integers(1, 12),
    counts=st.lists(st.integers(0, 4), min_size=1, max_size=3),
    copies=st.integers(1, 2),
    k=st.integers(1, 15),
)
def test_pairs_are_those_of_the_definition(
    seed: int, queries: int, counts: list[int], copies: int, k: int
) -> None:
    predictions, targets = problem(seed, queries, counts, copies)
    rule = TaskAlignedAssigner(k=k, class_power=1, iou_power=6)
    u = torch.zeros(predictions.logits.shape[:3])
    rows = rule.assign(predictions, targets, u)
    found = torch.stack([rows.layer, rows.image, rows.target, rows.query], dim=1)[rows.valid]
    listed = [tuple(row) for row in found.tolist()]
    expected = slow_pairs(rule, predictions, targets)
    assert set(listed) == expected
    assert len(listed) == len(expected)
    explained = rule.explain(predictions, targets, u)
    assert {tuple(place) for place in explained.paired.nonzero().tolist()} == expected
    assert torch.equal(explained.reason == 0, explained.paired)
    alone = targets.valid & ~explained.paired.any(dim=3)
    causes = torch.stack(list(explained.causes.values())).sum(dim=0)
    assert torch.equal(causes, alone.long())


def test_query_serves_the_target_that_it_overlaps_most() -> None:
    targets = Targets.from_lists(
        [torch.tensor([[0.5, 0.5, 0.4, 0.4], [0.52, 0.5, 0.4, 0.4]])], [torch.tensor([0, 1])]
    )
    # More probable as class 0, but nearer to the second target.
    predictions = Predictions(
        torch.tensor([2.0, -2.0]).view(1, 1, 1, 2),
        torch.tensor([0.52, 0.5, 0.4, 0.4]).view(1, 1, 1, 4),
    )
    explained = TaskAlignedAssigner(13, 1, 6).explain(predictions, targets, torch.zeros(1, 1, 1))
    assert explained.paired.flatten().tolist() == [False, True]
    [reason] = {explained.reasons[int(explained.reason[0, 0, 0, 0]) - 1].code}
    served = int(explained.query_columns["served"][0, 0, 0])
    assert reason.format(served=served) == "lost_to_target:1"


@pytest.mark.parametrize("power", [0, 1])
def test_query_without_overlap_is_never_positive(power: float) -> None:
    targets = Targets.from_lists([torch.tensor([[0.2, 0.2, 0.1, 0.1]])], [torch.tensor([0])])
    far = Predictions(torch.zeros(1, 1, 1, 1), torch.tensor([0.8, 0.8, 0.1, 0.1]).view(1, 1, 1, 4))
    rule = TaskAlignedAssigner(k=13, class_power=1, iou_power=power)
    assert not rule.assign(far, targets, torch.zeros(1, 1, 1)).valid.any()
