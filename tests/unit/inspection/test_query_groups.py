"""Pairs of query groups and noise of denoising, per image."""

from __future__ import annotations

import json

import pytest
import torch

from msdetr.assignment import (
    HungarianAssigner,
    OneToManyAssigner,
    RepeatedHungarianAssigner,
    assign_together,
)
from msdetr.data.denoising import DenoisingNoise
from msdetr.inspection.query_groups import TracedGroups, trace_groups
from msdetr.losses import (
    BranchRule,
    Criterion,
    DenoisingRule,
    GroupRule,
    LossWeights,
    Normalizer,
    Supervision,
)
from msdetr.structures import GroupOutput, ModelOutput, Predictions, Targets

COST = {"class_weight": 2.0, "l1_weight": 5.0, "giou_weight": 2.0}
WEIGHTS = LossWeights(1, 5, 2)
NUM_LAYERS, NUM_CLASSES = 2, 3
COUNTS = (3, 0)
NOISE = DenoisingNoise(
    contrastive=True,
    budget=None,
    groups=2,
    label_redraw=0.5,
    box_noise=0.4,
    max_targets=None,
    labels=(0, 1, 2),
    seed=3,
)


def draw(num_queries: int, seed: int) -> Predictions:
    generator = torch.Generator().manual_seed(seed)
    shape = (NUM_LAYERS, len(COUNTS), num_queries)
    logits = torch.randn(*shape, NUM_CLASSES, generator=generator)
    return Predictions(logits, 0.3 + 0.4 * torch.rand(*shape, 4, generator=generator))


@pytest.fixture
def targets() -> Targets:
    generator = torch.Generator().manual_seed(1)
    boxes = [0.3 + 0.4 * torch.rand(n, 4, generator=generator) for n in COUNTS]
    labels = [torch.randint(NUM_CLASSES, (n,), generator=generator) for n in COUNTS]
    return Targets.from_lists(boxes, labels)


def supervision(copies: int = 2) -> Supervision:
    many = OneToManyAssigner(
        k=2, threshold=0.0, iou_weight=0.7, class_weight=0.3, max_positive_fraction=None
    )
    hybrid = RepeatedHungarianAssigner(**COST, copies=copies)
    return Supervision(
        assign_together,
        BranchRule(HungarianAssigner(**COST), WEIGHTS),
        BranchRule(many, WEIGHTS),
        groups={"hybrid": GroupRule(BranchRule(hybrid, WEIGHTS, Normalizer(copies=copies)))},
        denoising=DenoisingRule(WEIGHTS, "background"),
    )


def trace(targets: Targets, hybrid: Predictions, many: Predictions) -> list[TracedGroups]:
    noised = NOISE(targets, [0, 0])
    denoising = GroupOutput("denoising", draw(noised.labels.shape[1], 4), noised=noised)
    output = ModelOutput(draw(5, 2), many, extra_groups=(GroupOutput("hybrid", hybrid), denoising))
    u = torch.zeros(NUM_LAYERS, len(COUNTS), 5)
    return trace_groups(Criterion(supervision()), output, targets, u)


def test_every_copy_of_a_target_has_a_query(targets: Targets) -> None:
    with_targets, empty = trace(targets, draw(9, 5), draw(5, 2))
    hybrid, denoising = with_targets.groups
    assert (hybrid.name, hybrid.num_queries) == ("hybrid", 9)
    assert hybrid.serving == hybrid.pairs == (6, 6)
    # Two groups, one positive slot per target each; as many negative ones serve nothing.
    assert (denoising.num_queries, denoising.serving) == (12, (6, 6))
    assert denoising.also_one_to_many is None
    assert [group.serving for group in empty.groups] == [(0, 0), (0, 0)]
    assert empty.groups[1].num_queries == 0


def test_equal_predictions_make_the_same_pairs(targets: Targets) -> None:
    many = draw(5, 2)
    repeated = Predictions(many.logits.repeat(1, 1, 2, 1), many.boxes_cxcywh.repeat(1, 1, 2, 1))
    far = Predictions(repeated.logits, 0.01 * repeated.boxes_cxcywh)
    (same, _), (other, _) = trace(targets, repeated, many), trace(targets, far, many)
    shared = same.groups[0].also_one_to_many
    assert shared is not None
    assert sum(shared) > 0
    assert other.groups[0].also_one_to_many == (0, 0)


def test_noise_is_measured_against_the_targets(targets: Targets) -> None:
    noise = trace(targets, draw(9, 5), draw(5, 2))[0].noise
    assert noise is not None
    assert len(noise.iou) == 12
    positive = [
        iou for iou, is_positive in zip(noise.iou, noise.positive, strict=True) if is_positive
    ]
    negative = [
        iou for iou, is_positive in zip(noise.iou, noise.positive, strict=True) if not is_positive
    ]
    assert sum(positive) / 6 > sum(negative) / 6
    assert any(noise.flipped)
    assert not all(noise.flipped)
    assert noise.target == (0, 1, 2) * 4


def test_what_is_stored_reads_back(targets: Targets) -> None:
    for traced in trace(targets, draw(9, 5), draw(5, 2)):
        assert TracedGroups.from_dict(json.loads(json.dumps(traced.to_dict()))) == traced
    assert TracedGroups.from_dict(TracedGroups().to_dict()) == TracedGroups()
