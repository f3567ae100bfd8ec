"""An assigner of one's own: every target gets the queries whose boxes have the nearest centers."""

import torch
from pydantic import BaseModel, Field

from msdetr.assignment.ranking import mark_pairs, ranks_of
from msdetr.assignment.rows import rows_of_targets
from msdetr.structures import Explanation, Reason


class NearestCenters:
    """The k queries nearest to a target's center, as far as they are within a radius."""

    draws_u = False

    class Options(BaseModel, extra="forbid"):
        k: int = Field(4, ge=1, description="Queries per target at most.")
        radius: float = Field(0.25, gt=0, description="Largest distance, as a part of the image.")

    def __init__(self, options):
        self.options = options

    def describe(self):
        return f"{self.options.k} nearest centers within {self.options.radius:g}"

    def distances(self, predictions, targets):
        """[N, B, T, Q], from the centers of all boxes to those of all targets."""
        centers = targets.boxes_cxcywh[None, :, :, None, :2]
        return (predictions.boxes_cxcywh[:, :, None, :, :2] - centers).norm(dim=-1)

    def assign(self, predictions, targets, u):
        distance, query = self.distances(predictions, targets).sort(dim=-1, stable=True)
        distance, query = distance[..., : self.options.k], query[..., : self.options.k]
        valid = (distance <= self.options.radius) & targets.valid[:, :, None]
        return rows_of_targets(query, -distance, valid)

    def explain(self, predictions, targets, u):
        score = -self.distances(predictions, targets)
        paired = mark_pairs(self.assign(predictions, targets, u), score.shape)
        near = ranks_of(score) <= self.options.k
        reason = torch.where(paired, 0, torch.where(near, 1, 2))
        reasons = (Reason("too_far", "too far"), Reason("over_k", f"over k = {self.options.k}"))
        causes = {"too_far": targets.valid & ~paired.any(dim=-1)}
        return Explanation(
            score=score, paired=paired, reason=reason, reasons=reasons, causes=causes
        )
