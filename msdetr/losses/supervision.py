"""Supervision as data: which predictions answer for which targets, by which rule."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from msdetr.structures import Assigner, Assignment, ModelOutput, Predictions, Proposals, Targets


@dataclass(frozen=True)
class LossWeights:
    """Factors of a branch's loss terms in the total.

    Attributes:
        class_weight: Factor of the focal loss.
        box_weight: Factor of the L1 loss.
        giou_weight: Factor of the GIoU loss.
    """

    class_weight: float
    box_weight: float
    giou_weight: float


@dataclass(frozen=True)
class BranchRule:
    """How one branch is supervised.

    Attributes:
        assigner: Pairs the branch's queries with targets.
        weights: Factors of its loss terms.
    """

    assigner: Assigner
    weights: LossWeights


@dataclass(frozen=True)
class SupervisionBranch:
    """One set of predictions with its targets and its rule.

    Attributes:
        name: "one_to_one", "one_to_many" or "proposals".
        match_on: Predictions that the assigner compares with the targets.
        predictions: Predictions that the losses are computed on; same queries as ``match_on``.
        targets: Targets of the batch, with the branch's labels.
        assigner: Pairs queries with targets.
        weights: Factors of the loss terms.
    """

    name: str
    match_on: Predictions
    predictions: Predictions
    targets: Targets
    assigner: Assigner
    weights: LossWeights


@dataclass(frozen=True)
class Supervision:
    """Turns the output of a model into supervised branches.

    Attributes:
        assign: Carries out the assignments of all branches, given u [N, B, Q], so that they may
            share a copy to the host; ``msdetr.assignment.assign_together``.
        one_to_one: Rule of the one-to-one predictions.
        one_to_many: Rule of the one-to-many predictions; None where the model has none.
        proposals: Rule of the proposals; None for one-stage models.
    """

    assign: Callable[[Sequence[SupervisionBranch], Tensor], list[Assignment]]
    one_to_one: BranchRule
    one_to_many: BranchRule | None = None
    proposals: BranchRule | None = None

    def branches(self, output: ModelOutput, targets: Targets) -> list[SupervisionBranch]:
        """List the branches of a training step; everything in them is float32 or wider.

        Args:
            output: Of a model that predicts whatever has a rule here.
            targets: Of the same images.

        Returns:
            One-to-one, one-to-many, proposals, in this order, as far as they have rules.

        Raises:
            ValueError: If the output lacks predictions that have a rule.
        """
        branches = [_branch("one_to_one", self.one_to_one, output.one_to_one, targets)]
        if self.one_to_many is not None:
            if output.one_to_many is None:
                raise ValueError("one-to-many supervision needs a model that ran that branch")
            branches.append(_branch("one_to_many", self.one_to_many, output.one_to_many, targets))
        if self.proposals is not None:
            if output.proposals is None:
                raise ValueError("supervised proposals need a two-stage model")
            branches.append(_proposal_branch(self.proposals, output.proposals, targets))
        return branches


def _branch(
    name: str, rule: BranchRule, predictions: Predictions, targets: Targets
) -> SupervisionBranch:
    wide = Predictions(_widen(predictions.logits), _widen(predictions.boxes_cxcywh))
    return SupervisionBranch(name, wide, wide, targets, rule.assigner, rule.weights)


def _proposal_branch(rule: BranchRule, proposals: Proposals, targets: Targets) -> SupervisionBranch:
    """Proposals know no classes: class index 0 stands for "object"."""
    objects = replace(targets, labels=torch.zeros_like(targets.labels))
    predictions = Predictions(proposals.logits[None], proposals.boxes_cxcywh[None])
    branch = _branch("proposals", rule, predictions, objects)
    anchors = _widen(proposals.anchors_cxcywh[None])
    return replace(branch, match_on=replace(branch.predictions, boxes_cxcywh=anchors))


def _widen(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.float()
