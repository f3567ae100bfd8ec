"""One-to-many assignment: targets get as many of their best queries as they attract."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from msdetr.assignment.costs import logits_of_targets, pairwise_iou
from msdetr.assignment.rows import rows_of_targets
from msdetr.structures import Assignment, Predictions, Targets

_LOW_BITS = 32
_LOW_MASK = (1 << _LOW_BITS) - 1


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
        k: Most queries per target, at least 1.
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
        """Score of every pair.

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
        """Score from class probability and IoU of the same pairs [...], as [...] float32."""
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
        best_queries = _best_queries(scores, self.k)
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

    def _cap(self, positive: Tensor, u: Tensor) -> Tensor:
        if self.max_positive_fraction is None:
            return positive
        limit = math.floor(self.max_positive_fraction * positive.shape[-1])
        order = u.masked_fill(~positive, math.inf).sort(dim=-1, stable=True).indices
        first = torch.zeros_like(positive).scatter_(2, order[..., :limit], value=True)
        return positive & first


def _best_queries(scores: Tensor, k: int) -> Tensor:
    """The k best queries of every target; torch.topk alone leaves the order of ties open."""
    num_queries = scores.shape[-1]
    # Bits of floats that are not negative order like the floats; -inf comes below them all.
    high = scores.view(torch.int32).long() << _LOW_BITS
    keys = high + torch.arange(num_queries - 1, -1, -1, device=scores.device)
    best = keys.topk(min(k, num_queries), dim=-1).values
    return num_queries - 1 - (best & _LOW_MASK)


def _mark(queries: Tensor, valid: Tensor, num_queries: int) -> Tensor:
    """[N, B, Q] bool, True at the queries [N, B, T] of valid targets [B, T]."""
    index = torch.where(valid, queries, num_queries)
    shape = (*queries.shape[:2], num_queries + 1)
    marked = torch.zeros(shape, dtype=torch.bool, device=queries.device)
    return marked.scatter_(2, index, value=True)[..., :num_queries]
