"""Supervision as data: which predictions are responsible for which targets, by which rule."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from msdetr.structures import (
    PRIMARY,
    Assigner,
    Assignment,
    GroupOutput,
    ModelOutput,
    NoisedTargets,
    Pairing,
    Predictions,
    Proposals,
    Targets,
)

Padding = Literal["background", "ignore"]


@dataclass(frozen=True)
class LossWeights:
    """Factors of a branch's loss terms in the total.

    Attributes:
        class_weight: Factor of the class loss.
        box_weight: Factor of the L1 loss.
        giou_weight: Factor of the GIoU loss.
    """

    class_weight: float
    box_weight: float
    giou_weight: float

    def scaled(self, factor: float) -> LossWeights:
        """Return all three times ``factor``."""
        return LossWeights(
            self.class_weight * factor, self.box_weight * factor, self.giou_weight * factor
        )


@dataclass(frozen=True)
class Normalizer:
    """What loss sums are divided by, as a function of the targets of the optimizer step.

    Attributes:
        copies: Pairs per target; multiplied before the result is kept at 1 or above.
        groups: Groups that learn from every target; multiplied afterwards.
    """

    copies: float = 1.0
    groups: float = 1.0

    def of(self, num_targets: float | Tensor) -> float | Tensor:
        """Return groups * max(1, copies * num_targets)."""
        scaled = num_targets * self.copies
        at_least_one = scaled.clamp(min=1) if isinstance(scaled, Tensor) else max(1.0, scaled)
        return at_least_one * self.groups


@dataclass(frozen=True)
class BranchRule:
    """How one branch is supervised.

    Attributes:
        assigner: Pairs the branch's queries with targets.
        weights: Factors of its loss terms.
        normalizer: What its loss terms are divided by.
        match_on: For proposals only: what is compared with the targets.
    """

    assigner: Assigner
    weights: LossWeights
    normalizer: Normalizer = Normalizer()
    match_on: Literal["anchors", "predictions"] = "anchors"


@dataclass(frozen=True)
class GroupRule:
    """How a query group beside the primary one is supervised.

    Attributes:
        one_to_one: Rule of its own predictions.
        one_to_many: Rule of its one-to-many predictions; None where it has none.
        proposals: Rule of its own proposals; None where it has none.
    """

    one_to_one: BranchRule
    one_to_many: BranchRule | None = None
    proposals: BranchRule | None = None

    @property
    def draws_u(self) -> bool:
        """Whether the pairs of a branch depend on u."""
        rules = (self.one_to_one, self.one_to_many)
        return any(rule is not None and rule.assigner.draws_u for rule in rules)


@dataclass(frozen=True)
class DenoisingRule:
    """How denoising queries are supervised: every slot is paired with what it was made of.

    Attributes:
        weights: Factors of the loss terms.
        padding: Whether padding slots are background in the class loss, or in no loss.
    """

    weights: LossWeights
    padding: Padding


@dataclass(frozen=True)
class SupervisionBranch:
    """One set of predictions with its targets and its rule.

    Attributes:
        name: As in ``LossTerm.branch``.
        match_on: Predictions that the assigner compares with the targets.
        predictions: Predictions that the losses are computed on; same queries as ``match_on``.
        targets: Targets of the batch, with the branch's labels.
        assigner: Pairs queries with targets.
        weights: Factors of the loss terms.
        u: [N, B, Q] float, uniform in [0, 1): the randomness of the assignment.
        normalizer: What the loss terms are divided by.
        counted: [B, Q] bool, False for queries that no loss touches; None if all count.
    """

    name: str
    match_on: Predictions
    predictions: Predictions
    targets: Targets
    assigner: Pairing
    weights: LossWeights
    u: Tensor
    normalizer: Normalizer = Normalizer()
    counted: Tensor | None = None


@dataclass(frozen=True)
class FixedPairs:
    """Pairs denoising queries with the targets that they were made of, in every layer.

    Attributes:
        noised: What the queries were made of.
    """

    noised: NoisedTargets

    def assign(self, predictions: Predictions, targets: Targets, u: Tensor) -> Assignment:  # noqa: ARG002
        """Return N * B * R rows, valid for positive slots; scores are 0."""
        num_layers, num_images, num_slots = predictions.logits.shape[:3]
        device = predictions.logits.device
        ranges = [torch.arange(size, device=device) for size in (num_layers, num_images, num_slots)]
        layer, image, query = (index.flatten() for index in torch.meshgrid(*ranges, indexing="ij"))
        return Assignment(
            layer=layer,
            image=image,
            query=query,
            target=self.noised.target.expand(num_layers, -1, -1).flatten(),
            score=torch.zeros(layer.shape, device=device),
            valid=self.noised.positive.expand(num_layers, -1, -1).flatten(),
        )


@dataclass(frozen=True)
class Supervision:
    """Turns the output of a model into supervised branches.

    Attributes:
        assign: Carries out the assignments of all branches, so that they may share a copy to the
            host; ``msdetr.assignment.assign_together``.
        one_to_one: Rule of the primary group's one-to-one predictions.
        one_to_many: Rule of its one-to-many predictions; None where the model has none.
        proposals: Rule of its proposals; None for one-stage models.
        groups: Rules of other query groups, by name.
        denoising: Rule of denoising queries; None where the model has none.
    """

    assign: Callable[[Sequence[SupervisionBranch]], list[Assignment]]
    one_to_one: BranchRule
    one_to_many: BranchRule | None = None
    proposals: BranchRule | None = None
    groups: Mapping[str, GroupRule] = field(default_factory=dict)
    denoising: DenoisingRule | None = None

    def branches(self, output: ModelOutput, targets: Targets, u: Tensor) -> list[SupervisionBranch]:
        """List the branches of a training step; everything in them is float32 or wider.

        Args:
            output: Of a model that predicts whatever has a rule here. Groups without a rule are
                left out.
            targets: Of the same images.
            u: [N, B, Q] float, uniform in [0, 1): the randomness of the assignments; N the most
                layers of a branch, Q all queries of the groups in their order, or those of the
                primary one alone where no other draws.

        Returns:
            One-to-one, one-to-many, proposals of the primary group, then of the others, as far
            as they have rules.

        Raises:
            ValueError: If the output lacks predictions that have a rule, or u numbers that an
                assigner draws.
        """
        missing = {*self.groups} - {group.name for group in output.extra_groups}
        if missing:
            raise ValueError(f"no output of the query groups {sorted(missing)}")
        branches: list[SupervisionBranch] = []
        first = 0
        for group in output.groups:
            num_queries = group.one_to_one.logits.shape[2]
            branches += self._of_group(group, targets, u[:, :, first : first + num_queries])
            first += num_queries
        return branches

    def _of_group(
        self, group: GroupOutput, targets: Targets, u: Tensor
    ) -> Iterator[SupervisionBranch]:
        if group.name == PRIMARY:
            rule = GroupRule(self.one_to_one, self.one_to_many, self.proposals)
            yield from _branches_of(group, rule, targets, u, names=_PRIMARY_NAMES)
        elif group.noised is not None:
            if self.denoising is not None:
                yield _denoising_branch(group, group.noised, self.denoising, targets, u)
        elif group.name in self.groups:
            names = (group.name, f"{group.name}_one_to_many", f"{group.name}_proposals")
            rule = self.groups[group.name]
            if u.shape[2] != group.one_to_one.logits.shape[2] and rule.draws_u:
                raise ValueError(f"u has no random numbers for the queries of {group.name}")
            yield from _branches_of(group, rule, targets, u, names=names)


_PRIMARY_NAMES = ("one_to_one", "one_to_many", "proposals")


def _branches_of(
    group: GroupOutput, rule: GroupRule, targets: Targets, u: Tensor, *, names: tuple[str, str, str]
) -> Iterator[SupervisionBranch]:
    one_to_one, one_to_many, proposals = names
    yield _branch(one_to_one, rule.one_to_one, group.one_to_one, targets, u)
    if rule.one_to_many is not None:
        if group.one_to_many is None:
            raise ValueError("one-to-many supervision needs a model that ran that branch")
        yield _branch(one_to_many, rule.one_to_many, group.one_to_many, targets, u)
    if rule.proposals is not None:
        if group.proposals is None:
            raise ValueError("supervised proposals need a two-stage model")
        yield _proposal_branch(proposals, rule.proposals, group.proposals, targets, u)


def _branch(
    name: str, rule: BranchRule, predictions: Predictions, targets: Targets, u: Tensor
) -> SupervisionBranch:
    wide = _widened(predictions)
    # Branches may differ in their layers; further ones would draw nothing.
    u = u[: predictions.logits.shape[0]]
    return SupervisionBranch(
        name, wide, wide, targets, rule.assigner, rule.weights, u, rule.normalizer
    )


def _denoising_branch(
    group: GroupOutput, noised: NoisedTargets, rule: DenoisingRule, targets: Targets, u: Tensor
) -> SupervisionBranch:
    wide = _widened(group.one_to_one)
    return SupervisionBranch(
        name=group.name,
        match_on=wide,
        predictions=wide,
        targets=targets,
        assigner=FixedPairs(noised),
        weights=rule.weights,
        u=u,
        normalizer=Normalizer(groups=max(1, noised.num_groups)),
        counted=noised.valid if rule.padding == "ignore" else None,
    )


def _proposal_branch(
    name: str, rule: BranchRule, proposals: Proposals, targets: Targets, u: Tensor
) -> SupervisionBranch:
    """Make the branch of proposals, which know no classes: index 0 stands for "object"."""
    objects = replace(targets, labels=torch.zeros_like(targets.labels))
    predictions = Predictions(proposals.logits[None], proposals.boxes_cxcywh[None])
    branch = _branch(name, rule, predictions, objects, u)
    if rule.match_on == "predictions":
        return branch
    anchors = _widen(proposals.anchors_cxcywh[None])
    return replace(branch, match_on=replace(branch.predictions, boxes_cxcywh=anchors))


def _widened(predictions: Predictions) -> Predictions:
    return Predictions(_widen(predictions.logits), _widen(predictions.boxes_cxcywh))


def _widen(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.float()
