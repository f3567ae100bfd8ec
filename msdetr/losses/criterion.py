"""The criterion: one loop over the supervised branches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from msdetr.losses.class_loss import ClassLoss, FocalLoss
from msdetr.losses.supervision import Supervision, SupervisionBranch
from msdetr.losses.terms import giou_loss_and_iou, l1_loss, sum_per_layer
from msdetr.structures import Assignment, LossTerm, ModelOutput, Targets


class Criterion:
    """Computes the loss terms of a batch.

    Args:
        supervision: The branches and their rules.
        class_loss: Of all branches; focal by default.
    """

    def __init__(self, supervision: Supervision, class_loss: ClassLoss | None = None) -> None:
        self.supervision = supervision
        self.class_loss = class_loss or FocalLoss()

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
        boxes, weights = _box_losses(branch, rows), branch.weights
        named = (
            ("class", self._class_loss(branch, rows, boxes.iou), weights.class_weight),
            ("box", boxes.l1, weights.box_weight),
            ("giou", boxes.giou, weights.giou_weight),
        )
        return [
            LossTerm(branch.name, layer, name, value, weight)
            for name, values, weight in named
            for layer, value in enumerate((values / normalizer).unbind())
        ]

    def _class_loss(self, branch: SupervisionBranch, rows: Assignment, iou: Tensor) -> Tensor:
        """Compute the loss of all logits as background, corrected where a query has a target."""
        logits = branch.predictions.logits
        label = branch.targets.labels[rows.image, rows.target]
        positive = logits[rows.layer, rows.image, rows.query, label]
        excess = self.class_loss.excess(positive, iou)
        decides = _decides_class(rows, logits)
        if branch.counted is not None:
            # Neither loss nor gradient: the probability is 0.
            logits = logits.masked_fill(~branch.counted[:, :, None], -torch.inf)
        background = self.class_loss.background(logits)
        return background + sum_per_layer(excess, rows.layer, decides, logits.shape[0])


def total_loss(terms: Sequence[LossTerm]) -> Tensor:
    """Compute the weighted sum of loss terms, as a scalar."""
    values = torch.stack([term.value for term in terms])
    weights = torch.tensor([term.weight for term in terms], dtype=values.dtype)
    return values @ weights.to(values.device, non_blocking=True)


@dataclass(frozen=True)
class _BoxLosses:
    """L1 and GIoU loss per layer, [N], and the IoU of every row, [R], without gradient."""

    l1: Tensor
    giou: Tensor
    iou: Tensor


def _box_losses(branch: SupervisionBranch, rows: Assignment) -> _BoxLosses:
    boxes = branch.predictions.boxes_cxcywh
    paired = boxes[rows.layer, rows.image, rows.query]
    target = branch.targets.boxes_cxcywh[rows.image, rows.target].to(paired.dtype)
    num_layers = boxes.shape[0]
    giou, iou = giou_loss_and_iou(paired, target)
    return _BoxLosses(
        sum_per_layer(l1_loss(paired, target), rows.layer, rows.valid, num_layers),
        sum_per_layer(giou, rows.layer, rows.valid, num_layers),
        iou,
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
