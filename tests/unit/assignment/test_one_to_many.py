"""The one-to-many assigner against the method's six steps, written as loops."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from msdetr.assignment import OneToManyAssigner
from msdetr.structures import Assignment, Predictions, Targets

Pairs = set[tuple[int, int, int, int]]
NUM_CLASSES = 3
# Few values, so that equal scores are common. Sums of eighths are exact in float32.
PROBABILITIES = {-1000.0: 0.0, 0.0: 0.5, 1000.0: 1.0}
EDGES = [i / 8 for i in range(9)]


def pairs(rows: Assignment) -> Pairs:
    table = torch.stack([rows.layer, rows.image, rows.query, rows.target], dim=1)
    return {(n, b, q, t) for n, b, q, t in table[rows.valid].tolist()}


def slow_iou(first: list[float], second: list[float]) -> np.float32:
    sides = []
    for axis in (0, 1):
        low = max(box[axis] - box[axis + 2] / 2 for box in (first, second))
        high = min(box[axis] + box[axis + 2] / 2 for box in (first, second))
        sides.append(max(high - low, 0.0))
    intersection = sides[0] * sides[1]
    union = first[2] * first[3] + second[2] * second[3] - intersection
    return np.float32(intersection) / np.float32(union) if union else np.float32(0)


@dataclass
class Steps:
    """Reference of one layer and image."""

    candidate: list[int]
    above: set[int]
    forced: set[int]
    kept: set[int]
    counts: Counter[int]
    pairs: list[tuple[int, int]]


def slow_steps(score: list[list[np.float32]], u: list[float], rule: OneToManyAssigner) -> Steps:
    """The six steps; ``score[q][t]``, ties to the lowest query, then to the lowest target."""
    num_queries, num_targets = len(score), len(score[0])
    queries, targets = range(num_queries), range(num_targets)
    # max, index and sorted keep the first of equals.
    candidate = [row.index(max(row)) for row in score]
    threshold = np.float32(rule.threshold)
    above = {q for q in queries if score[q][candidate[q]] >= threshold}
    columns = [[row[t] for row in score] for t in targets]
    forced = {column.index(max(column)) for column in columns}
    kept = above | forced
    if rule.max_positive_fraction is not None:
        limit = int(rule.max_positive_fraction * num_queries)
        kept = set(sorted(sorted(kept), key=lambda q: u[q])[:limit])
    counts = Counter(candidate[q] for q in kept)
    found = []
    for t in targets:
        ranked = sorted(queries, key=columns[t].__getitem__, reverse=True)
        found += [(q, t) for q in ranked[: min(counts[t], rule.k)]]
    return Steps(candidate, above, forced, kept, counts, found)


def slow_scores(
    logits: Tensor, boxes: Tensor, labels: Tensor, target_boxes: Tensor, rule: OneToManyAssigner
) -> list[list[np.float32]]:
    """[Q][T] of one image, rounded to float32 after every operation, as the tensors are."""
    iou_weight, class_weight = np.float32(rule.iou_weight), np.float32(rule.class_weight)
    return [
        [
            np.float32(PROBABILITIES[logits[q, label].item()]) * class_weight
            + slow_iou(box, target) * iou_weight
            for label, target in zip(labels.tolist(), target_boxes.tolist(), strict=True)
        ]
        for q, box in enumerate(boxes.tolist())
    ]


@st.composite
def exact_boxes(draw: st.DrawFn, *shape: int) -> Tensor:
    """Boxes (cx, cy, w, h) with corners on a grid of eighths, some without area."""
    count = int(np.prod(shape))
    corner = st.lists(st.sampled_from(EDGES), min_size=4, max_size=4)
    drawn = draw(st.lists(corner, min_size=count, max_size=count))
    corners = torch.tensor(drawn).reshape(*shape, 2, 2).sort(dim=-2).values
    low, high = corners[..., 0, :], corners[..., 1, :]
    return torch.cat([(low + high) / 2, high - low], dim=-1)


@st.composite
def problems(draw: st.DrawFn) -> tuple[OneToManyAssigner, Predictions, Targets, Tensor]:
    num_layers, num_queries = draw(st.integers(1, 2)), draw(st.integers(1, 9))
    counts = draw(st.lists(st.integers(0, 4), min_size=1, max_size=3))
    shape = (num_layers, len(counts), num_queries)

    def tensor(values: st.SearchStrategy[float], *size: int) -> Tensor:
        count = int(np.prod(size))
        return torch.tensor(draw(st.lists(values, min_size=count, max_size=count))).view(size)

    logits = tensor(st.sampled_from(sorted(PROBABILITIES)), *shape, NUM_CLASSES)
    boxes = draw(exact_boxes(*shape))
    labels = [tensor(st.integers(0, NUM_CLASSES - 1), count).long() for count in counts]
    target_boxes = [draw(exact_boxes(count)) if count else torch.zeros(0, 4) for count in counts]
    u = tensor(st.sampled_from([0.0, 0.25, 0.5, 0.75]), *shape)
    iou_weight = draw(st.sampled_from([0.7, 0.5, 1.0]))
    rule = OneToManyAssigner(
        k=draw(st.integers(1, num_queries)),
        threshold=draw(st.sampled_from([0.0, 0.25, 0.4, 0.5, 1.0])),
        iou_weight=iou_weight,
        class_weight=1 - iou_weight,
        max_positive_fraction=draw(st.sampled_from([None, 0.25, 0.5, 1.0])),
    )
    return rule, Predictions(logits, boxes), Targets.from_lists(target_boxes, labels), u


@settings(max_examples=80, deadline=None)
@given(problem=problems())
def test_every_step_equals_the_slow_reference(
    problem: tuple[OneToManyAssigner, Predictions, Targets, Tensor],
) -> None:
    rule, predictions, targets, u = problem
    steps = rule.steps(predictions, targets, u)
    expected: Pairs = set()
    for n, b in np.ndindex(tuple(u.shape[:2])):
        count = int(targets.counts[b])
        if not count:
            continue
        boxes, labels = targets.boxes_cxcywh[b, :count], targets.labels[b, :count]
        score = slow_scores(
            predictions.logits[n, b], predictions.boxes_cxcywh[n, b], labels, boxes, rule
        )
        slow = slow_steps(score, u[n, b].tolist(), rule)
        assert steps.candidate[n, b].tolist() == slow.candidate
        assert set(steps.above_threshold[n, b].nonzero().flatten().tolist()) == slow.above
        assert set(steps.forced[n, b].nonzero().flatten().tolist()) == slow.forced
        assert set(steps.kept[n, b].nonzero().flatten().tolist()) == slow.kept
        capped = (slow.above | slow.forced) - slow.kept
        assert set(steps.capped[n, b].nonzero().flatten().tolist()) == capped
        assert steps.num_positives[n, b, :count].tolist() == [slow.counts[t] for t in range(count)]
        expected |= {(n, b, q, t) for q, t in slow.pairs}
    rows = rule.assign(predictions, targets, u)
    assert pairs(rows) == expected
    assert int(rows.valid.sum()) == len(expected)


def draw_case(
    counts: tuple[int, ...], num_queries: int = 60
) -> tuple[Predictions, Targets, Tensor]:
    """Continuous values: no ties."""
    generator = torch.Generator().manual_seed(0)
    shape = (2, len(counts), num_queries)
    centre, size = torch.rand(*shape, 2, generator=generator), torch.rand(*shape, 2)
    boxes = torch.cat([centre, 0.2 + 0.3 * size], dim=-1)
    logits = torch.randn(*shape, NUM_CLASSES, generator=generator)
    targets = Targets.from_lists(
        [boxes[0, b, :count] for b, count in enumerate(counts)],
        [torch.randint(NUM_CLASSES, (count,), generator=generator) for count in counts],
    )
    return Predictions(logits, boxes), targets, torch.rand(shape, generator=generator)


def published(k: int = 6, *, fraction: float | None = 0.25) -> OneToManyAssigner:
    return OneToManyAssigner(
        k=k, threshold=0.4, iou_weight=0.7, class_weight=0.3, max_positive_fraction=fraction
    )


def test_batched_equals_single() -> None:
    counts = (5, 0, 1, 9)
    predictions, targets, u = draw_case(counts)
    together = pairs(published().assign(predictions, targets, u))
    alone: Pairs = set()
    for b, count in enumerate(counts):
        part = Predictions(predictions.logits[:, b : b + 1], predictions.boxes_cxcywh[:, b : b + 1])
        one = Targets.from_lists([targets.boxes_cxcywh[b, :count]], [targets.labels[b, :count]])
        rows = published().assign(part, one, u[:, b : b + 1])
        alone |= {(n, b, q, t) for n, _, q, t in pairs(rows)}
    assert together == alone
    assert {b for _, b, _, _ in together} == {0, 2, 3}


def test_permuting_queries_and_u_permutes_the_pairs() -> None:
    predictions, targets, u = draw_case((5, 9))
    order = torch.randperm(u.shape[-1], generator=torch.Generator().manual_seed(1))
    permuted = Predictions(predictions.logits[:, :, order], predictions.boxes_cxcywh[:, :, order])
    before = pairs(published().assign(predictions, targets, u))
    after = pairs(published().assign(permuted, targets, u[:, :, order]))
    assert {(n, b, order[q].item(), t) for n, b, q, t in after} == before


def test_permuting_targets_permutes_the_pairs() -> None:
    predictions, targets, u = draw_case((6, 6))
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    permuted = Targets(
        targets.boxes_cxcywh[:, order], targets.labels[:, order], targets.counts, targets.image_ids
    )
    before = pairs(published().assign(predictions, targets, u))
    after = pairs(published().assign(predictions, permuted, u))
    assert {(n, b, q, order[t].item()) for n, b, q, t in after} == before


def test_the_cap_limits_positives_and_follows_u() -> None:
    predictions, targets, u = draw_case((20, 1))
    assigner = OneToManyAssigner(
        k=6, threshold=0.1, iou_weight=0.7, class_weight=0.3, max_positive_fraction=0.25
    )
    steps = assigner.steps(predictions, targets, u)
    assert (steps.kept.sum(dim=-1) <= 15).all()
    assert steps.capped.any()
    positive = steps.above_threshold | steps.forced
    for n, b in np.ndindex(2, 2):
        if steps.capped[n, b].any():
            kept = u[n, b][steps.kept[n, b]]
            assert kept.numel() == 15
            assert kept.max() < u[n, b][positive[n, b] & ~steps.kept[n, b]].min()


def test_without_a_cap_u_does_not_matter() -> None:
    predictions, targets, u = draw_case((20, 3))
    free = published(fraction=None)
    assert not free.steps(predictions, targets, u).capped.any()
    same = pairs(free.assign(predictions, targets, u)) == pairs(
        free.assign(predictions, targets, 1 - u)
    )
    assert same


@pytest.mark.parametrize("k", [1, 6, 60, 200])
def test_rows_have_a_length_known_in_advance(k: int) -> None:
    predictions, targets, u = draw_case((5, 0))
    rows = published(k).assign(predictions, targets, u)
    assert rows.query.shape == (2 * 2 * 5 * min(k, 60),)
    assert (rows.image[rows.valid] == 0).all()
    assert rows.query.min() >= 0
    assert rows.query.max() < 60


def test_the_score_is_that_of_the_pair() -> None:
    predictions, targets, u = draw_case((5, 2))
    rows = published().assign(predictions, targets, u)
    scores = published().scores(predictions, targets)
    expected = scores[rows.layer, rows.image, rows.target, rows.query]
    assert torch.equal(rows.score[rows.valid], expected[rows.valid])


def test_predictions_that_are_not_finite_keep_indices_in_range() -> None:
    predictions, targets, u = draw_case((5, 2))
    broken = Predictions(predictions.logits * torch.nan, predictions.boxes_cxcywh * torch.nan)
    rows = published().assign(broken, targets, u)
    assert 0 <= rows.query.min() <= rows.query.max() < 60


def test_gradients_do_not_flow_through_the_assignment() -> None:
    predictions, targets, u = draw_case((5, 2))
    predictions.logits.requires_grad_()
    assert not published().assign(predictions, targets, u).score.requires_grad
