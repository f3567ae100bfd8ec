"""From the model's output to supervised branches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from msdetr.losses import BranchRule, LossWeights, Supervision, SupervisionBranch
from msdetr.losses.supervision import GroupRule
from msdetr.structures import (
    Assignment,
    GroupOutput,
    ModelOutput,
    Predictions,
    Proposals,
    Targets,
)


class NeverAsked:
    def assign(self, predictions: Predictions, targets: Targets, u: Tensor) -> Assignment:
        raise NotImplementedError


def assign_nothing(branches: Sequence[SupervisionBranch]) -> list[Assignment]:
    raise NotImplementedError


def rule(class_weight: float) -> BranchRule:
    return BranchRule(NeverAsked(), LossWeights(class_weight, box_weight=5, giou_weight=2))


@pytest.fixture
def output() -> ModelOutput:
    return ModelOutput(
        one_to_one=Predictions(torch.rand(3, 2, 7, 5), torch.rand(3, 2, 7, 4)),
        one_to_many=Predictions(torch.rand(3, 2, 7, 5), torch.rand(3, 2, 7, 4)),
        proposals=Proposals(torch.rand(2, 11, 5), torch.rand(2, 11, 4), torch.rand(2, 11, 4)),
    )


@pytest.fixture
def targets() -> Targets:
    labels = [torch.tensor([3, 4]), torch.tensor([2])]
    return Targets.from_lists([torch.rand(2, 4), torch.rand(1, 4)], labels)


U = torch.rand(3, 2, 7)
MIXED = Supervision(assign_nothing, rule(1), rule(2), rule(3))


def test_branches_come_in_order_with_their_rules(output: ModelOutput, targets: Targets) -> None:
    branches = MIXED.branches(output, targets, U)
    assert [b.name for b in branches] == ["one_to_one", "one_to_many", "proposals"]
    assert [b.weights.class_weight for b in branches] == [1, 2, 3]
    assert output.one_to_many is not None
    assert torch.equal(branches[0].predictions.logits, output.one_to_one.logits)
    assert torch.equal(branches[1].match_on.boxes_cxcywh, output.one_to_many.boxes_cxcywh)
    assert torch.equal(branches[1].targets.labels, targets.labels)


def test_branches_without_a_rule_are_left_out(output: ModelOutput, targets: Targets) -> None:
    baseline = Supervision(assign_nothing, rule(2))
    assert [b.name for b in baseline.branches(output, targets, U)] == ["one_to_one"]


def test_proposals_match_on_anchors_and_know_one_class(
    output: ModelOutput, targets: Targets
) -> None:
    branch = MIXED.branches(output, targets, U)[2]
    assert output.proposals is not None
    assert torch.equal(branch.match_on.boxes_cxcywh[0], output.proposals.anchors_cxcywh)
    assert torch.equal(branch.predictions.boxes_cxcywh[0], output.proposals.boxes_cxcywh)
    assert torch.equal(branch.predictions.logits[0], output.proposals.logits)
    assert branch.targets.labels.tolist() == [[0, 0], [0, 0]]
    assert torch.equal(branch.targets.boxes_cxcywh, targets.boxes_cxcywh)


def test_a_rule_without_predictions_is_an_error(output: ModelOutput, targets: Targets) -> None:
    with pytest.raises(ValueError, match="one-to-many"):
        MIXED.branches(replace(output, one_to_many=None), targets, U)
    with pytest.raises(ValueError, match="two-stage"):
        MIXED.branches(replace(output, proposals=None), targets, U)


@pytest.mark.parametrize("draws", [True, False])
def test_group_whose_assigner_draws_needs_numbers_of_its_own(
    output: ModelOutput, targets: Targets, *, draws: bool
) -> None:
    class Drawing(NeverAsked):
        draws_u = draws

    own = BranchRule(Drawing(), LossWeights(2, 5, 2))  # type: ignore[arg-type]
    supervision = Supervision(assign_nothing, rule(1), groups={"hybrid": GroupRule(own)})
    grouped = ModelOutput(
        output.one_to_one, extra_groups=(GroupOutput("hybrid", output.one_to_one),)
    )
    wide = torch.cat([U, U], dim=2)
    assert [b.u.shape[2] for b in supervision.branches(grouped, targets, wide)] == [7, 7]
    if draws:
        with pytest.raises(ValueError, match="no random numbers for the queries of hybrid"):
            supervision.branches(grouped, targets, U)
    else:
        assert len(supervision.branches(grouped, targets, U)) == 2


def test_reduced_precision_is_widened(targets: Targets) -> None:
    half = Predictions(torch.rand(1, 2, 7, 5).bfloat16(), torch.rand(1, 2, 7, 4).half())
    (branch,) = Supervision(assign_nothing, rule(2)).branches(ModelOutput(half), targets, U)
    assert branch.predictions.logits.dtype == torch.float32
    assert branch.match_on.boxes_cxcywh.dtype == torch.float32
