"""The criterion: one loop over the supervised branches."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from msdetr.losses.supervision import Supervision, SupervisionBranch
from msdetr.losses.terms import (
    background_focal_loss,
    giou_loss,
    l1_loss,
    positive_focal_excess,
    sum_per_layer,
)
from msdetr.structures import Assignment, LossTerm, ModelOutput, Targets


class Criterion:
    """Computes the loss terms of a batch.

    Args:
        supervision: The branches and their rules.
        alpha: Focal loss: weight of positives, in 0..1.
        gamma: Focal loss: focusing exponent.
    """

    def __init__(self, supervision: Supervision, alpha: float = 0.25, gamma: float = 2.0) -> None:
        self.supervision = supervision
        self.alpha = alpha
        self.gamma = gamma

    def __call__(
        self, output: ModelOutput, targets: Targets, *, num_targets: float | Tensor, u: Tensor
    ) -> list[LossTerm]:
        """Match and compute the losses, in float32 whatever the precision of the output.

        Args:
            output: Predictions of B images.
            targets: Of the same images.
            num_targets: Targets of the whole optimizer step, which the normalizers of the
                branches are made of.
            u: [N, B, Q] float, uniform in [0, 1): the randomness of the assignments, as for
                :meth:`Supervision.branches`.

        Returns:
            Terms "class", "box", "giou" of every decoder layer and branch.
        """
        with torch.autocast(output.one_to_one.logits.device.type, enabled=False):
            branches = self.supervision.branches(output, targets, u)
            assignments = self.supervision.assign(branches)
            return [
                term
                for branch, assignment in zip(branches, assignments, strict=True)
                for term in self._terms(branch, assignment, branch.normalizer.of(num_targets))
            ]

    def _terms(
        self, branch: SupervisionBranch, rows: Assignment, normalizer: float | Tensor
    ) -> list[LossTerm]:
        box, giou = _box_losses(branch, rows)
        weights = branch.weights
        named = (
            ("class", self._class_loss(branch, rows), weights.class_weight),
            ("box", box, weights.box_weight),
            ("giou", giou, weights.giou_weight),
        )
        return [
            LossTerm(branch.name, layer, name, value, weight)
            for name, values, weight in named
            for layer, value in enumerate((values / normalizer).unbind())
        ]

    def _class_loss(self, branch: SupervisionBranch, rows: Assignment) -> Tensor:
        """Compute the loss of all logits as background, corrected where a query has a target."""
        logits = branch.predictions.logits
        label = branch.targets.labels[rows.image, rows.target]
        positive = logits[rows.layer, rows.image, rows.query, label]
        excess = positive_focal_excess(positive, self.alpha, self.gamma)
        decides = _decides_class(rows, logits)
        if branch.counted is not None:
            # Neither loss nor gradient: the probability is 0.
            logits = logits.masked_fill(~branch.counted[:, :, None], -torch.inf)
        background = background_focal_loss(logits, self.alpha, self.gamma)
        return background + sum_per_layer(excess, rows.layer, decides, logits.shape[0])


def total_loss(terms: Sequence[LossTerm]) -> Tensor:
    """Compute the weighted sum of loss terms, as a scalar."""
    values = torch.stack([term.value for term in terms])
    weights = torch.tensor([term.weight for term in terms], dtype=values.dtype)
    return values @ weights.to(values.device, non_blocking=True)


def _box_losses(branch: SupervisionBranch, rows: Assignment) -> tuple[Tensor, Tensor]:
    boxes = branch.predictions.boxes_cxcywh
    paired = boxes[rows.layer, rows.image, rows.query]
    target = branch.targets.boxes_cxcywh[rows.image, rows.target].to(paired.dtype)
    num_layers = boxes.shape[0]
    return (
        sum_per_layer(l1_loss(paired, target), rows.layer, rows.valid, num_layers),
        sum_per_layer(giou_loss(paired, target), rows.layer, rows.valid, num_layers),
    )


def _decides_class(rows: Assignment, logits: Tensor) -> Tensor:
    """Return [R] bool: the valid rows that set their query's class.

    Where a query serves several targets it is the row with the highest score, then the lowest
    target.
    """
    num_layers, num_images, num_queries, _ = logits.shape
    num_all = num_layers * num_images * num_queries
    query = (rows.layer * num_images + rows.image) * num_queries + rows.query
    score = torch.where(rows.valid, rows.score, -torch.inf)
    best = score.new_full((num_all,), -torch.inf).scatter_reduce_(0, query, score, "amax")
    tied = rows.valid & (score == best[query])
    none = torch.iinfo(rows.target.dtype).max
    target = torch.where(tied, rows.target, none)
    lowest = target.new_full((num_all,), none).scatter_reduce_(0, query, target, "amin")
    return tied & (rows.target == lowest[query])
