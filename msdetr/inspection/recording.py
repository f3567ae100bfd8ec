"""From the output of a model to the images of a trace."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from msdetr.assignment import HungarianAssigner, OneToManyAssigner, assign_together
from msdetr.assignment.costs import logits_of_targets
from msdetr.assignment.ranking import list_queries, ranks_of
from msdetr.inspection.scheme import of_image
from msdetr.inspection.trace import BRANCHES, LOSS_NAMES, TracedBranch
from msdetr.losses import Criterion, Supervision
from msdetr.losses.supervision import SupervisionBranch
from msdetr.structures import (
    Assigner,
    Assignment,
    Explanation,
    LossTerm,
    ModelOutput,
    Predictions,
    Targets,
)


@dataclass(frozen=True, eq=False)
class RecordedImage:
    """The part of a traced image that the model and the assigners decide; see ``TracedImage``."""

    one_to_one: TracedBranch
    one_to_many: TracedBranch
    u: Tensor
    hungarian_cost: Tensor
    one_to_one_queries: Tensor
    one_to_many_queries: Tensor
    explanation: Explanation | None


class Recorder:
    """Runs both assignments and their losses on single images, and keeps what was decided.

    Args:
        criterion: With both branches; its proposals are left out.

    Raises:
        ValueError: If there is no one-to-many assigner, or the one-to-one one is not Hungarian.
    """

    def __init__(self, criterion: Criterion) -> None:
        one_to_one, one_to_many = (getattr(criterion.supervision, name) for name in BRANCHES)
        if one_to_many is None or not isinstance(one_to_one.assigner, HungarianAssigner):
            raise ValueError("a trace needs a Hungarian and a one-to-many assigner")
        self.hungarian: HungarianAssigner = one_to_one.assigner
        self.one_to_many: Assigner = one_to_many.assigner
        self._assignments = _Listening()
        supervision: Supervision = replace(
            criterion.supervision,
            assign=self._assignments,
            proposals=None,
            groups={},
            denoising=None,
        )
        self._criterion = Criterion(supervision, criterion.class_loss)

    @torch.no_grad()
    def record(self, output: ModelOutput, targets: Targets, index: int, u: Tensor) -> RecordedImage:
        """Record one image of a batch.

        Args:
            output: Of the batch; without a one-to-many branch its one-to-one predictions stand
                for both. Where the last layer alone predicts one-to-one, the one-to-many
                predictions of the others stand for theirs, with losses of 0.
            targets: Of the batch.
            index: Position of the image in the batch.
            u: [N, Q] float in [0, 1), the randomness of the cap.
        """
        many = _one_image(output.one_to_many or output.one_to_one, index)
        one = _one_image(output.one_to_one, index)
        num_untrained = many.logits.shape[0] - one.logits.shape[0]
        single = ModelOutput(_after(many, num_untrained, one), many)
        num_targets = int(targets.counts[index])
        alone = Targets(
            targets.boxes_cxcywh[index : index + 1, : max(1, num_targets)],
            targets.labels[index : index + 1, : max(1, num_targets)],
            targets.counts[index : index + 1],
            targets.image_ids[index : index + 1],
        )
        terms = self._criterion(single, alone, num_targets=1.0, u=u[:, None])
        one_to_one, *others = self._assignments.last
        cost = self.hungarian.cost(single.one_to_one, alone)[:, 0, :num_targets]
        explanation = self._explain(many, alone, u)
        recorded = _branch("one_to_one", single.one_to_one, alone, terms)
        recorded.losses[:num_untrained] = 0.0
        return RecordedImage(
            one_to_one=recorded,
            one_to_many=_branch("one_to_many", many, alone, terms),
            u=u.float().cpu(),
            hungarian_cost=cost.cpu().contiguous(),
            one_to_one_queries=_queries(one_to_one, alone, u)[..., 0],
            one_to_many_queries=list_queries(explanation.paired, ranks_of(explanation.score))
            if explanation
            else _queries(others[0], alone, u),
            explanation=explanation,
        )

    def _explain(self, predictions: Predictions, targets: Targets, u: Tensor) -> Explanation | None:
        """Explain the one-to-many assignment, unless a trace can repeat it anyway."""
        if isinstance(self.one_to_many, OneToManyAssigner):
            return None
        explanation = self.one_to_many.explain(predictions, targets, u[:, None])
        return of_image(explanation, int(targets.counts[0]))


@dataclass
class _Listening:
    """Assigns like training does, and keeps the last result."""

    last: list[Assignment] = field(default_factory=list)

    def __call__(self, requests: Sequence[SupervisionBranch]) -> list[Assignment]:
        self.last = assign_together(requests)
        return self.last


def _one_image(predictions: Predictions, index: int) -> Predictions:
    chosen = slice(index, index + 1)
    return Predictions(
        predictions.logits[:, chosen].float(), predictions.boxes_cxcywh[:, chosen].float()
    )


def _after(first: Predictions, number: int, second: Predictions) -> Predictions:
    """Return the first predictions of so many layers, then the second of all."""
    return Predictions(
        torch.cat([first.logits[:number], second.logits]),
        torch.cat([first.boxes_cxcywh[:number], second.boxes_cxcywh]),
    )


def _queries(rows: Assignment, targets: Targets, u: Tensor) -> Tensor:
    """Return [N, T, J] int64 of the rows of one image, -1 where they are not valid."""
    query = torch.where(rows.valid, rows.query, -1)
    per_target = query.view(u.shape[0], targets.labels.shape[1], -1)
    return per_target[:, : int(targets.counts[0])].cpu()


def _branch(
    name: str, predictions: Predictions, targets: Targets, terms: Sequence[LossTerm]
) -> TracedBranch:
    probabilities = logits_of_targets(predictions.logits, targets.labels).sigmoid_()
    values = {(term.name, term.layer): term.value for term in terms if term.branch == name}
    layers = range(predictions.logits.shape[0])
    losses = [torch.stack([values[loss, layer] for loss in LOSS_NAMES]) for layer in layers]
    return TracedBranch(
        boxes_cxcywh=predictions.boxes_cxcywh[:, 0].cpu().contiguous(),
        probabilities=probabilities[:, 0, : int(targets.counts[0])].cpu().contiguous(),
        losses=torch.stack(losses).float().cpu(),
    )
