"""One-to-many assignment: targets get as many of their best queries as they attract."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from msdetr.assignment.costs import logits_of_targets, pairwise_iou
from msdetr.assignment.ranking import mark_queries, ranks_of, top_queries
from msdetr.assignment.rows import rows_of_targets
from msdetr.structures import Assignment, Explanation, Predictions, Reason, Targets

COLUMNS = ("candidate", "above_threshold", "forced", "capped", "num_positives")
"""What an explanation has of queries, then of targets."""


@dataclass(frozen=True)
class OneToManySteps:
    """What the steps of a one-to-many assignment decided.

    Attributes:
        scores: [N, B, T, Q] float32; -inf for padding targets.
        candidate: [N, B, Q] int64, the target with the query's highest score; 0 in images
            without targets.
        candidate_score: [N, B, Q] float32, its score; -inf in images without targets.
        above_threshold: [N, B, Q] bool, True where that score reaches the threshold.
        forced: [N, B, Q] bool, True where the query is the best one of some target.
        kept: [N, B, Q] bool, the positives that stay under the cap; those that are above the
            threshold or forced but not kept were capped.
        num_positives: [N, B, T] int64, kept positives whose candidate is the target.
        best_queries: [N, B, T, J] int64, queries by descending score for the target,
            J = min(k, Q).
    """

    scores: Tensor
    candidate: Tensor
    candidate_score: Tensor
    above_threshold: Tensor
    forced: Tensor
    kept: Tensor
    num_positives: Tensor
    best_queries: Tensor

    @property
    def capped(self) -> Tensor:
        """[N, B, Q] bool, True for positives that the cap removed."""
        return (self.above_threshold | self.forced) & ~self.kept


@dataclass(frozen=True)
class OneToManyAssigner:
    """Pairs each target with up to k queries, all layers and images at once.

    Ties go to the lowest query, then to the lowest target.

    Attributes:
        k: Maximum queries per target, at least 1.
        threshold: Lowest score of a positive, in 0..1.
        iou_weight: Factor of the IoU in the score, not negative.
        class_weight: Factor of the class probability in the score, not negative.
        max_positive_fraction: Share of the queries that may be positive, or None for all.

    Source: Zhao et al., MS-DETR, CVPR 2024, section 3.2 and equation 3.
    """

    k: int
    threshold: float
    iou_weight: float
    class_weight: float
    max_positive_fraction: float | None

    @torch.no_grad()
    def scores(self, predictions: Predictions, targets: Targets) -> Tensor:
        """Compute the score of every pair.

        Args:
            predictions: Of N layers and B images.
            targets: Of the same images.

        Returns:
            [N, B, T, Q] float32, -inf for padding targets.
        """
        probability = logits_of_targets(predictions.logits, targets.labels).sigmoid_()
        iou = pairwise_iou(predictions.boxes_cxcywh, targets.boxes_cxcywh)
        return self.combine(probability, iou).masked_fill_(~targets.valid[:, :, None], -math.inf)

    def combine(self, probability: Tensor, iou: Tensor) -> Tensor:
        """Combine class probability and IoU of the same pairs [...] into scores [...] float32."""
        return probability.mul(self.class_weight).add_(iou.mul(self.iou_weight))

    @torch.no_grad()
    def steps(self, predictions: Predictions, targets: Targets, u: Tensor) -> OneToManySteps:
        """Carry out the assignment up to the number of positives per target.

        Args:
            predictions: Of N layers and B images.
            targets: Of the same images.
            u: [N, B, Q] float in [0, 1); where there are too many positives, those with the
                smallest u stay.

        Returns:
            The decisions of every step.
        """
        return self.steps_of_scores(self.scores(predictions, targets), targets.valid, u)

    @torch.no_grad()
    def steps_of_scores(self, scores: Tensor, valid: Tensor, u: Tensor) -> OneToManySteps:
        """Carry out the steps from scores that are known already.

        Args:
            scores: [N, B, T, Q] float32, -inf for padding targets.
            valid: [B, T] bool, False for padding targets.
            u: [N, B, Q] float in [0, 1), the randomness of the cap.

        Returns:
            The decisions of every step.
        """
        candidate_score, candidate = scores.max(dim=2)
        above_threshold = candidate_score >= self.threshold
        best_queries = top_queries(scores, self.k)
        forced = _mark(best_queries[..., 0], valid, scores.shape[-1])
        kept = self._cap(above_threshold | forced, u)
        num_positives = torch.zeros(scores.shape[:3], dtype=torch.int64, device=scores.device)
        num_positives.scatter_add_(2, candidate, kept.long())
        return OneToManySteps(
            scores=scores,
            candidate=candidate,
            candidate_score=candidate_score,
            above_threshold=above_threshold,
            forced=forced,
            kept=kept,
            num_positives=num_positives,
            best_queries=best_queries,
        )

    @torch.no_grad()
    def assign(self, predictions: Predictions, targets: Targets, u: Tensor) -> Assignment:
        """Pair each target with its best queries.

        Args:
            predictions: Of N layers and B images.
            targets: Of the same images.
            u: [N, B, Q] float in [0, 1), the randomness of the cap.

        Returns:
            R = N * B * T * min(k, Q) rows.
        """
        steps = self.steps(predictions, targets, u)
        slots = torch.arange(steps.best_queries.shape[-1], device=steps.scores.device)
        valid = slots < steps.num_positives[..., None]
        score = steps.scores.gather(3, steps.best_queries)
        return rows_of_targets(steps.best_queries, score, valid)

    @property
    def draws_u(self) -> bool:
        """Whether the pairs depend on u: where there is a cap."""
        return self.max_positive_fraction is not None

    def describe(self) -> str:
        """Return the settings in one line."""
        cap = self.max_positive_fraction
        return (
            f"k {self.k}, threshold {self.threshold:g}, IoU weight {self.iou_weight:g}, "
            f"{'no cap' if cap is None else f'cap {cap:g}'}"
        )

    def max_positives(self, num_queries: int) -> int | None:
        """Return the cap in queries; None without one."""
        fraction = self.max_positive_fraction
        return None if fraction is None else math.floor(fraction * num_queries)

    def explain(self, predictions: Predictions, targets: Targets, u: Tensor) -> Explanation:
        """Say of every pair which step decided it."""
        explained = explain_steps(self.steps(predictions, targets, u), self.k)
        causes = {name: cause & targets.valid for name, cause in explained.causes.items()}
        return replace(explained, causes=causes)

    def _cap(self, positive: Tensor, u: Tensor) -> Tensor:
        limit = self.max_positives(positive.shape[-1])
        if limit is None:
            return positive
        order = u.masked_fill(~positive, math.inf).sort(dim=-1, stable=True).indices
        first = torch.zeros_like(positive).scatter_(2, order[..., :limit], value=True)
        return positive & first


def _mark(queries: Tensor, valid: Tensor, num_queries: int) -> Tensor:
    """Return [N, B, Q] bool, True at the queries [N, B, T] of valid targets [B, T]."""
    index = torch.where(valid, queries, num_queries)
    shape = (*queries.shape[:2], num_queries + 1)
    marked = torch.zeros(shape, dtype=torch.bool, device=queries.device)
    return marked.scatter_(2, index, value=True)[..., :num_queries]


def explain_steps(steps: OneToManySteps, k: int) -> Explanation:
    """Say of every pair which step decided it.

    Args:
        steps: Of a batch, or of one image without the image dimension.
        k: Maximum queries per target.
    """
    slots = torch.arange(steps.best_queries.shape[-1], device=steps.scores.device)
    used = slots < steps.num_positives[..., None]
    queries = torch.where(used, steps.best_queries, -1)
    paired = mark_queries(queries, steps.scores.shape[-1])
    targets = torch.arange(paired.shape[-2], device=paired.device)[:, None]
    chosen = steps.candidate[..., None, :] == targets
    alone = steps.num_positives == 0
    fell = (steps.capped[..., None, :] & chosen).any(dim=-1)
    return Explanation(
        score=steps.scores,
        paired=paired,
        reason=_reasons(steps, paired, chosen),
        reasons=(*_REASONS, Reason("over_k", f"over k = {k}")),
        score_range=(0.0, 1.0),
        query_columns={
            "candidate": steps.candidate,
            "above_threshold": steps.above_threshold,
            "forced": steps.forced,
            "capped": steps.capped,
        },
        target_columns={"num_positives": steps.num_positives},
        causes={"dropped_by_cap": alone & fell, "lost_to_target": alone & ~fell},
        capped=steps.capped,
        target_note="n_t = {num_positives}",
    )


_LOST_TO_TARGET, _DROPPED_BY_CAP, _BELOW_THRESHOLD, _BEYOND_COUNT, _OVER_K = range(1, 6)
_REASONS = (
    # Its candidate is another target.
    Reason("lost_to_target:{candidate}", "lost to target {candidate}"),
    # It was positive, but more than the cap allows were.
    Reason("dropped_by_cap", "dropped by cap"),
    Reason("below_threshold", "below threshold"),
    # Its rank for the target exceeds n_t, the positives that the target attracts.
    Reason("beyond_count", "beyond n_t = {num_positives}"),
)


def _reasons(steps: OneToManySteps, paired: Tensor, chosen: Tensor) -> Tensor:
    reasons = torch.full(paired.shape, _OVER_K, dtype=torch.uint8, device=paired.device)
    # From the last to the first, so that the first that holds stays.
    reasons[ranks_of(steps.scores) > steps.num_positives[..., None]] = _BEYOND_COUNT
    reasons[~steps.above_threshold[..., None, :].expand_as(paired)] = _BELOW_THRESHOLD
    reasons[steps.capped[..., None, :].expand_as(paired)] = _DROPPED_BY_CAP
    reasons[~chosen] = _LOST_TO_TARGET
    reasons[paired] = 0
    return reasons
