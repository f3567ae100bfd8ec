"""One-to-many assignment by task alignment: probability and IoU, multiplied and sharpened."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from msdetr.assignment.costs import logits_of_targets, pairwise_iou
from msdetr.assignment.ranking import mark_queries, top_queries
from msdetr.assignment.rows import rows_of_targets
from msdetr.structures import Assignment, Explanation, Predictions, Reason, Targets

_SERVES_OTHER, _NO_OVERLAP, _BEYOND_K = 1, 2, 3


@dataclass(frozen=True)
class _Steps:
    """Scores [N, B, T, Q], the k best queries [N, B, T, J], and what becomes of them.

    ``chosen`` and ``paired`` are [N, B, T, Q] bool, before and after queries that several
    targets chose went to one of them: ``served`` [N, B, Q] int64.
    """

    scores: Tensor
    best: Tensor
    chosen: Tensor
    served: Tensor
    paired: Tensor


@dataclass(frozen=True)
class TaskAlignedAssigner:
    """Pairs each target with the k queries of the highest p^a * IoU^b.

    A query that several targets choose serves the one with which it has the largest IoU. Queries
    without any overlap are never chosen. Unlike in TOOD, whose anchors must lie inside their
    target, a query may be anywhere. Ties go to the lowest query, then to the lowest target.

    Attributes:
        k: Maximum queries per target, at least 1.
        class_power: Exponent a of the probability of the target's class, not negative.
        iou_power: Exponent b of the IoU, not negative.

    Source: Feng et al., TOOD, ICCV 2021, section 3.2 and equation 1; a 1, b 6, k 13.
    """

    k: int
    class_power: float
    iou_power: float

    @property
    def draws_u(self) -> bool:
        """Whether the pairs depend on u: they do not."""
        return False

    def describe(self) -> str:
        """Return the settings in one line."""
        return f"k {self.k}, class power {self.class_power:g}, IoU power {self.iou_power:g}"

    def max_positives(self, num_queries: int) -> int | None:  # noqa: ARG002
        """Return None: every query may be positive."""
        return None

    @torch.no_grad()
    def assign(self, predictions: Predictions, targets: Targets, u: Tensor) -> Assignment:  # noqa: ARG002
        """Pair each target with its best queries.

        Args:
            predictions: Of N layers and B images.
            targets: Of the same images.
            u: Ignored; this assignment is not random.

        Returns:
            R = N * B * T * min(k, Q) rows.
        """
        steps = self._steps(predictions, targets)
        score = steps.scores.gather(3, steps.best)
        return rows_of_targets(steps.best, score, steps.paired.gather(3, steps.best))

    @torch.no_grad()
    def explain(self, predictions: Predictions, targets: Targets, u: Tensor) -> Explanation:  # noqa: ARG002
        """Say of every pair which step decided it."""
        steps = self._steps(predictions, targets)
        reason = torch.full_like(steps.paired, _BEYOND_K, dtype=torch.uint8)
        # From the last to the first, so that the first that holds stays.
        reason[steps.scores <= 0] = _NO_OVERLAP
        reason[steps.chosen] = _SERVES_OTHER
        reason[steps.paired] = 0
        alone = targets.valid & ~steps.paired.any(dim=3)
        return Explanation(
            score=steps.scores,
            paired=steps.paired,
            reason=reason,
            reasons=(
                Reason("lost_to_target:{served}", "fits target {served} better"),
                Reason("no_overlap", "no overlap"),
                Reason("beyond_k", f"beyond k = {self.k}"),
            ),
            query_columns={"served": steps.served},
            causes={
                "lost_to_target": alone & steps.chosen.any(dim=3),
                "no_overlap": alone & ~steps.chosen.any(dim=3),
            },
        )

    def _steps(self, predictions: Predictions, targets: Targets) -> _Steps:
        probability = logits_of_targets(predictions.logits, targets.labels).sigmoid_()
        iou = pairwise_iou(predictions.boxes_cxcywh, targets.boxes_cxcywh)
        scores = probability.pow_(self.class_power).mul_(iou.pow(self.iou_power))
        scores.masked_fill_((iou <= 0) | ~targets.valid[:, :, None], 0)
        best = top_queries(scores, self.k)
        chosen = mark_queries(best, scores.shape[3]) & (scores > 0)
        fit, target = iou.masked_fill(~chosen, -1).max(dim=2)
        served = torch.where(fit < 0, -1, target)
        rows = torch.arange(scores.shape[2], device=scores.device)[:, None]
        return _Steps(scores, best, chosen, served, chosen & (served[:, :, None] == rows))
