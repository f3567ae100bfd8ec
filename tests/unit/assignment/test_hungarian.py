"""The Hungarian assigner and the joint assignment of several branches."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from msdetr.assignment import (
    HungarianAssigner,
    OneToManyAssigner,
    assign_together,
    hungarian,
)
from msdetr.assignment.solve import solve_together
from msdetr.boxes import cxcywh_to_xyxy, iou_and_giou
from msdetr.structures import Assignment, Predictions, Targets

ASSIGNER = HungarianAssigner(class_weight=2, l1_weight=5, giou_weight=2)
NUM_LAYERS, NUM_QUERIES, NUM_CLASSES = 2, 12, 5


def draw_targets(counts: tuple[int, ...], seed: int = 0) -> Targets:
    generator = torch.Generator().manual_seed(seed)
    boxes = [torch.rand(count, 4, generator=generator) for count in counts]
    labels = [torch.randint(NUM_CLASSES, (count,), generator=generator) for count in counts]
    return Targets.from_lists(boxes, labels)


def draw_predictions(num_images: int, num_queries: int = NUM_QUERIES, seed: int = 1) -> Predictions:
    generator = torch.Generator().manual_seed(seed)
    shape = (NUM_LAYERS, num_images, num_queries)
    logits = torch.randn(*shape, NUM_CLASSES, generator=generator)
    return Predictions(logits, torch.rand(*shape, 4, generator=generator))


def draw_u(predictions: Predictions) -> Tensor:
    return torch.rand(predictions.logits.shape[:3], generator=torch.Generator().manual_seed(2))


def pairs(rows: Assignment) -> set[tuple[int, int, int, int]]:
    table = torch.stack([rows.layer, rows.image, rows.query, rows.target], dim=1)
    return {(n, b, q, t) for n, b, q, t in table[rows.valid].tolist()}


@dataclass
class Request:
    assigner: HungarianAssigner | OneToManyAssigner
    match_on: Predictions
    targets: Targets

    @property
    def u(self) -> Tensor:
        return draw_u(self.match_on)


def test_cost_is_the_weighted_sum() -> None:
    predictions, targets = draw_predictions(2), draw_targets((3, 2))
    cost = ASSIGNER.cost(predictions, targets)
    n, b, t, q = 1, 0, 2, 7
    box, target = predictions.boxes_cxcywh[n, b, q], targets.boxes_cxcywh[b, t]
    p = predictions.logits[n, b, q, targets.labels[b, t]].sigmoid()
    label = 0.25 * (1 - p) ** 2 * -p.log() - 0.75 * p**2 * -(1 - p).log()
    giou = iou_and_giou(cxcywh_to_xyxy(box), cxcywh_to_xyxy(target))[1]
    expected = 2 * label + 5 * (box - target).abs().sum() - 2 * giou
    torch.testing.assert_close(cost[n, b, t, q], expected, rtol=1e-5, atol=1e-6)


def test_without_class_weight_the_logits_do_not_matter() -> None:
    predictions, targets = draw_predictions(1), draw_targets((3,))
    broken = Predictions(torch.full_like(predictions.logits, torch.nan), predictions.boxes_cxcywh)
    boxes_only = HungarianAssigner(class_weight=0, l1_weight=5, giou_weight=2)
    assert torch.equal(boxes_only.cost(broken, targets), boxes_only.cost(predictions, targets))


def test_the_score_is_the_negative_cost_of_the_pair() -> None:
    predictions, targets = draw_predictions(2), draw_targets((3, 4))
    rows = ASSIGNER.assign(predictions, targets, draw_u(predictions))
    cost = ASSIGNER.cost(predictions, targets)
    assert rows.valid.sum() == NUM_LAYERS * (3 + 4)
    picked = cost[rows.layer, rows.image, rows.target, rows.query]
    assert torch.equal(rows.score[rows.valid], -picked[rows.valid])


def test_an_image_without_targets_gets_no_pairs() -> None:
    predictions = draw_predictions(3)
    rows = ASSIGNER.assign(predictions, draw_targets((2, 0, 3)), draw_u(predictions))
    assert {image for _, image, _, _ in pairs(rows)} == {0, 2}


def test_no_targets_at_all() -> None:
    predictions = draw_predictions(2)
    rows = ASSIGNER.assign(predictions, draw_targets((0, 0)), draw_u(predictions))
    assert not rows.valid.any()


def test_more_targets_than_queries_leaves_targets_over() -> None:
    predictions = draw_predictions(1, num_queries=2)
    found = pairs(ASSIGNER.assign(predictions, draw_targets((5,)), draw_u(predictions)))
    assert len(found) == NUM_LAYERS * 2


@pytest.mark.parametrize("counts", [(3, 0, 6), (1, 1, 1)])
def test_batched_equals_single(counts: tuple[int, ...]) -> None:
    predictions, targets = draw_predictions(len(counts)), draw_targets(counts)
    together = pairs(ASSIGNER.assign(predictions, targets, draw_u(predictions)))
    alone = set()
    for b, count in enumerate(counts):
        one = Targets.from_lists([targets.boxes_cxcywh[b, :count]], [targets.labels[b, :count]])
        part = Predictions(predictions.logits[:, b : b + 1], predictions.boxes_cxcywh[:, b : b + 1])
        alone |= {(n, b, q, t) for n, _, q, t in pairs(ASSIGNER.assign(part, one, draw_u(part)))}
    assert together == alone


def test_permuting_queries_permutes_the_pairs() -> None:
    predictions, targets = draw_predictions(2), draw_targets((3, 5))
    order = torch.randperm(NUM_QUERIES, generator=torch.Generator().manual_seed(3))
    permuted = Predictions(predictions.logits[:, :, order], predictions.boxes_cxcywh[:, :, order])
    before = pairs(ASSIGNER.assign(predictions, targets, draw_u(predictions)))
    after = pairs(ASSIGNER.assign(permuted, targets, draw_u(predictions)))
    assert {(n, b, order[q].item(), t) for n, b, q, t in after} == before


def test_joint_assignment_equals_separate_ones_with_one_call_to_the_solver(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    num_problems = []

    def counted(
        costs: list[Tensor], counts: list[Tensor], copies: list[int] | None = None
    ) -> list[Tensor]:
        num_problems.append(len(costs))
        return solve_together(costs, counts, copies)

    monkeypatch.setattr(hungarian, "solve_together", counted)
    many = OneToManyAssigner(
        k=2, threshold=0.3, iou_weight=0.7, class_weight=0.3, max_positive_fraction=0.25
    )
    targets = draw_targets((3, 2))
    requests = [
        Request(ASSIGNER, draw_predictions(2), targets),
        Request(many, draw_predictions(2, seed=5), targets),
        Request(HungarianAssigner(0, 5, 2), draw_predictions(2, num_queries=40), targets),
    ]
    together = assign_together(requests)
    assert num_problems == [2]
    for request, rows in zip(requests, together, strict=True):
        separate = request.assigner.assign(request.match_on, request.targets, request.u)
        assert pairs(rows) == pairs(separate)
        assert pairs(rows)


def test_joint_assignment_without_hungarian_branches() -> None:
    many = OneToManyAssigner(
        k=2, threshold=0.3, iou_weight=0.7, class_weight=0.3, max_positive_fraction=None
    )
    request = Request(many, draw_predictions(1), draw_targets((2,)))
    (rows,) = assign_together([request])
    assert pairs(rows)
