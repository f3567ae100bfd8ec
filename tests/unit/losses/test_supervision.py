"""From the model's output to supervised branches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from msdetr.losses import (
    BranchRule,
    DenoisingRule,
    GroupRule,
    LossWeights,
    Normalizer,
    Supervision,
    SupervisionBranch,
)
from msdetr.losses.supervision import Padding
from msdetr.structures import (
    Assignment,
    GroupOutput,
    ModelOutput,
    NoisedTargets,
    Predictions,
    Proposals,
    Targets,
)


class NeverAsked:
    draws_u = False

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


class TestQueryGroups:
    def noised(self) -> NoisedTargets:
        """Two groups of a positive and a negative slot; the second image is padding."""
        valid = torch.tensor([[True] * 4, [False] * 4])
        positive = torch.tensor([True, False, True, False]) & valid
        zeros = torch.zeros(2, 4, dtype=torch.int64)
        return NoisedTargets(
            labels=zeros,
            boxes_cxcywh=torch.zeros(2, 4, 4),
            logits=torch.zeros(2, 4, 4),
            target=zeros,
            positive=positive,
            valid=valid,
            num_groups=2,
        )

    @pytest.fixture
    def whole(self, output: ModelOutput) -> ModelOutput:
        def predictions(queries: int) -> Predictions:
            return Predictions(torch.rand(3, 2, queries, 5), torch.rand(3, 2, queries, 4))

        return replace(
            output,
            extra_groups=(
                GroupOutput("group_1", predictions(7), predictions(7), output.proposals),
                GroupOutput("hybrid", predictions(9)),
                GroupOutput("denoising", predictions(4), noised=self.noised()),
            ),
        )

    def supervision(self, padding: Padding = "background") -> Supervision:
        return replace(
            MIXED,
            groups={
                "group_1": GroupRule(rule(4), rule(5), rule(6)),
                "hybrid": GroupRule(replace(rule(7), normalizer=Normalizer(copies=6))),
            },
            denoising=DenoisingRule(LossWeights(8, 5, 2), padding),
        )

    def test_branches_follow_the_groups(self, whole: ModelOutput, targets: Targets) -> None:
        u = torch.rand(3, 2, 7 + 7 + 9 + 4)
        branches = self.supervision().branches(whole, targets, u)
        assert [(b.name, b.weights.class_weight) for b in branches] == [
            ("one_to_one", 1),
            ("one_to_many", 2),
            ("proposals", 3),
            ("group_1", 4),
            ("group_1_one_to_many", 5),
            ("group_1_proposals", 6),
            ("hybrid", 7),
            ("denoising", 8),
        ]
        firsts = {"one_to_one": 0, "group_1": 7, "hybrid": 14, "denoising": 23}
        for branch in branches:
            if branch.name in firsts:
                first = firsts[branch.name]
                queries = branch.predictions.logits.shape[2]
                assert torch.equal(branch.u, u[:, :, first : first + queries]), branch.name

    def test_random_numbers_of_the_primary_group_alone_suffice(
        self, whole: ModelOutput, targets: Targets
    ) -> None:
        branches = self.supervision().branches(whole, targets, U)
        assert torch.equal(branches[0].u, U)

    def test_group_without_its_output_is_an_error(
        self, whole: ModelOutput, targets: Targets
    ) -> None:
        fewer = replace(whole, extra_groups=whole.extra_groups[:1])
        with pytest.raises(ValueError, match=r"no output of the query groups \['hybrid'\]"):
            self.supervision().branches(fewer, targets, U)

    def test_groups_without_a_rule_are_left_out(self, whole: ModelOutput, targets: Targets) -> None:
        names = [branch.name for branch in MIXED.branches(whole, targets, U)]
        assert names == ["one_to_one", "one_to_many", "proposals"]

    def test_pairs_of_denoising_are_those_that_it_was_made_with(
        self, whole: ModelOutput, targets: Targets
    ) -> None:
        branch = self.supervision().branches(whole, targets, U)[-1]
        rows = branch.assigner.assign(branch.predictions, branch.targets, branch.u)
        pairs = torch.stack([rows.layer, rows.image, rows.query, rows.target], dim=1)[rows.valid]
        assert pairs.tolist() == [[layer, 0, query, 0] for layer in range(3) for query in (0, 2)]

    @pytest.mark.parametrize("padding", ["background", "ignore"])
    def test_padding_counts_or_does_not(
        self, padding: Padding, whole: ModelOutput, targets: Targets
    ) -> None:
        branch = self.supervision(padding).branches(whole, targets, U)[-1]
        if padding == "background":
            assert branch.counted is None
        else:
            assert branch.counted is not None
            assert branch.counted.tolist() == [[True] * 4, [False] * 4]


@pytest.mark.parametrize(
    ("normalizer", "by_targets"),
    [
        (Normalizer(), {0: 1, 0.1: 1, 1: 1, 5: 5}),
        # Multiplied first, then kept at 1 or above.
        (Normalizer(copies=6), {0: 1, 0.1: 1, 0.5: 3, 1: 6, 5: 30}),
        # The other way round.
        (Normalizer(groups=4), {0: 4, 0.1: 4, 1: 4, 5: 20}),
    ],
)
def test_normalizer_of_few_targets(normalizer: Normalizer, by_targets: dict[float, float]) -> None:
    for number, expected in by_targets.items():
        assert normalizer.of(number) == pytest.approx(expected)
        as_tensor = normalizer.of(torch.tensor(float(number)))
        torch.testing.assert_close(as_tensor, torch.tensor(float(expected)))
