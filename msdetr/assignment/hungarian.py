"""One-to-one assignment: each target gets the query that minimises the total cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from msdetr.assignment.costs import (
    focal_class_cost,
    logits_of_targets,
    pairwise_giou,
    pairwise_l1,
)
from msdetr.assignment.ranking import mark_pairs
from msdetr.assignment.rows import rows_of_targets
from msdetr.assignment.solve import solve_together
from msdetr.structures import (
    Assignment,
    Explanation,
    Pairing,
    Predictions,
    Reason,
    Targets,
)

_OTHER_TARGET, _OTHER_QUERIES = 1, 2
_REASONS = (
    Reason("serves_target:{served}", "serves target {served}"),
    Reason("not_in_the_matching", "others cost less"),
)


class AssignmentRequest(Protocol):
    """What is to be matched with what, and how."""

    @property
    def match_on(self) -> Predictions:
        """Predictions that are compared with the targets."""
        ...

    @property
    def targets(self) -> Targets:
        """Targets to pair them with."""
        ...

    @property
    def assigner(self) -> Pairing:
        """The rule."""
        ...

    @property
    def u(self) -> Tensor:
        """[N, B, Q] float, uniform in [0, 1), for rules that draw."""
        ...


@dataclass(frozen=True)
class HungarianAssigner:
    """Pairs every target with one query, at least total cost per layer and image.

    Attributes:
        class_weight: Factor of the class cost; 0 leaves the logits unread.
        l1_weight: Factor of the L1 distance of (cx, cy, w, h).
        giou_weight: Factor of the negative generalised IoU.
        alpha: Weight of the positive part of the class cost, in 0..1.
        gamma: Focusing exponent of the class cost.

    Source: Carion et al., DETR, ECCV 2020, equations 1 and 2.
    """

    class_weight: float
    l1_weight: float
    giou_weight: float
    alpha: float = 0.25
    gamma: float = 2.0

    @property
    def num_copies(self) -> int:
        """How often every target enters the matching."""
        return 1

    @property
    def draws_u(self) -> bool:
        """Whether the pairs depend on u: they do not."""
        return False

    def describe(self) -> str:
        """Return the settings in one line."""
        return (
            f"cost {self.class_weight:g} class + {self.l1_weight:g} L1 "
            f"+ {self.giou_weight:g} (-GIoU)"
        )

    def max_positives(self, num_queries: int) -> int | None:  # noqa: ARG002
        """Return None: every query may be positive."""
        return None

    @torch.no_grad()
    def cost(self, predictions: Predictions, targets: Targets) -> Tensor:
        """Compute the cost of every pair.

        Args:
            predictions: Of N layers and B images.
            targets: Of the same images; those in padding rows get meaningless costs.

        Returns:
            [N, B, T, Q] float32.
        """
        boxes, target_boxes = predictions.boxes_cxcywh, targets.boxes_cxcywh
        cost = self.l1_weight * pairwise_l1(boxes, target_boxes)
        cost.sub_(pairwise_giou(boxes, target_boxes), alpha=self.giou_weight)
        if self.class_weight:
            logits = logits_of_targets(predictions.logits, targets.labels)
            cost.add_(focal_class_cost(logits, self.alpha, self.gamma), alpha=self.class_weight)
        return cost

    def assign(self, predictions: Predictions, targets: Targets, u: Tensor) -> Assignment:  # noqa: ARG002
        """Pair every target with one query.

        Args:
            predictions: Of N layers and B images.
            targets: Of the same images.
            u: Ignored; this assignment is not random.

        Returns:
            R = N * B * T rows, times the copies; the score is the negative cost.
        """
        cost = self.cost(predictions, targets)
        (queries,) = solve_together([cost], [targets.counts], [self.num_copies])
        return _to_assignment(cost, queries)

    @torch.no_grad()
    def explain(self, predictions: Predictions, targets: Targets, u: Tensor) -> Explanation:
        """Say of every pair whether it is part of the matching; the score is the negative cost."""
        cost = self.cost(predictions, targets)
        num_layers, num_images, num_targets, num_queries = cost.shape
        shape = (num_layers, num_images, num_targets, num_queries)
        return _explain(
            cost, targets.valid, mark_pairs(self.assign(predictions, targets, u), shape)
        )


def _explain(cost: Tensor, valid: Tensor, paired: Tensor) -> Explanation:
    """Explain pairs [N, B, T, Q] of costs [N, B, T, Q]; valid is [B, T]."""
    served = paired.long().argmax(dim=2)
    free = ~paired.any(dim=2)
    reason = torch.where(free[:, :, None], _OTHER_QUERIES, _OTHER_TARGET).to(torch.uint8)
    return Explanation(
        score=-cost,
        paired=paired,
        reason=reason.expand(paired.shape).masked_fill(paired, 0),
        reasons=_REASONS,
        query_columns={"served": torch.where(free, -1, served)},
        causes={"more_targets_than_queries": ~paired.any(dim=3) & valid},
    )


def assign_together(requests: Sequence[AssignmentRequest]) -> list[Assignment]:
    """Carry out several assignments with one copy to the host for all Hungarian ones.

    Args:
        requests: What to match with what.

    Returns:
        One assignment per request, in their order.
    """
    hungarian = {
        i: request.assigner
        for i, request in enumerate(requests)
        if isinstance(request.assigner, HungarianAssigner)
    }
    costs = {
        i: assigner.cost(requests[i].match_on, requests[i].targets)
        for i, assigner in hungarian.items()
    }
    results = {
        i: request.assigner.assign(request.match_on, request.targets, request.u)
        for i, request in enumerate(requests)
        if i not in hungarian
    }
    if costs:
        counts = [requests[i].targets.counts for i in costs]
        copies = [assigner.num_copies for assigner in hungarian.values()]
        solved = solve_together(list(costs.values()), counts, copies)
        for (i, cost), queries in zip(costs.items(), solved, strict=True):
            results[i] = _to_assignment(cost, queries)
    return [results[i] for i in range(len(requests))]


def _to_assignment(cost: Tensor, queries: Tensor) -> Assignment:
    num_layers, num_images, num_targets, _ = cost.shape
    # [N, B, T, J], J the copies.
    of_targets = queries.view(num_layers, num_images, -1, num_targets).transpose(2, 3)
    if cost.shape[3] == 0:
        of_targets = of_targets[..., :0]
    score = -cost.gather(3, of_targets.clamp(min=0))
    return rows_of_targets(of_targets.clamp(min=0), score, of_targets >= 0)
