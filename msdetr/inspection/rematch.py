"""Assignments recomputed from a trace, with the settings of the model or with others."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from msdetr.assignment import OneToManyAssigner, OneToManySteps
from msdetr.assignment.costs import pairwise_iou
from msdetr.assignment.one_to_many import explain_steps
from msdetr.assignment.ranking import mark_queries, ranks_of
from msdetr.assignment.solve import solve_together
from msdetr.errors import UsageError
from msdetr.inspection.scheme import StoredScheme
from msdetr.inspection.trace import TracedImage
from msdetr.structures import Explanation, Reason

# So that the lowest score of a pair still shows.
_LOWEST_SHARE = 0.25


@dataclass(frozen=True, eq=False)
class ImageMatching:
    """Both assignments of an image, and how the one-to-many assigner came to its.

    Attributes:
        iou: [N, T, Q] float32, of the one-to-many branch's boxes.
        scores: [N, T, Q] float32.
        ranks: [N, T, Q] int64 from 1, by descending score for the target, then lowest query.
        explanation: Of the one-to-many assignment, without the image dimension.
        one_to_many: [N, T, Q] bool, the pairs.
        one_to_many_queries: [N, T, J] int64, the same by rank; -1 on unused slots.
        one_to_one: [N, T, Q] bool, the pairs.
        one_to_one_queries: [N, T] int64; -1 for targets without a query.
    """

    iou: Tensor
    scores: Tensor
    ranks: Tensor
    explanation: Explanation
    one_to_many: Tensor
    one_to_many_queries: Tensor
    one_to_one: Tensor
    one_to_one_queries: Tensor

    @property
    def is_bounded(self) -> bool:
        """Whether scores lie between 0 and 1, so that they can be drawn as they are."""
        return self.explanation.score_range == (0.0, 1.0)

    @cached_property
    def strengths(self) -> Tensor:
        """[N, T, Q] float32, the scores as shares of their range, 0..1, to be drawn."""
        low, high = self.explanation.score_range or self._shown_range()
        shares = (self.scores - low) / max(high - low, 1e-12)
        if self.explanation.score_range is None:
            shares = shares * (1 - _LOWEST_SHARE) + _LOWEST_SHARE
        return shares.nan_to_num(0.0).clamp(0, 1)

    def _shown_range(self) -> tuple[float, float]:
        """Range of the pairs' scores: without bounds, all others can be far below them."""
        finite = self.scores[self.scores.isfinite()]
        if not len(finite):
            return 0.0, 1.0
        paired = self.scores[self.one_to_many & self.scores.isfinite()]
        return float((paired if len(paired) else finite).min()), float(finite.max())

    def reason(self, layer: int, target: int, query: int) -> Reason | None:
        """Return why a query is not paired with a target, its texts filled in; None for pairs."""
        explanation = self.explanation
        number = int(explanation.reason[layer, target, query])
        if number == 0:
            return None
        reason = explanation.reasons[number - 1]
        place = (torch.tensor([target]), torch.tensor([query]))
        values = {name: value.item() for name, value in self.own(layer, *place).items()}
        return Reason(reason.code.format_map(values), reason.words.format_map(values))

    def own(self, layer: int, targets: Tensor, queries: Tensor) -> dict[str, Tensor]:
        """Return the assigner's own columns of pairs, those of the queries first.

        Args:
            layer: Decoder layer.
            targets: [P] int64.
            queries: [P] int64.

        Returns:
            By name, [P].
        """
        of_query, of_target = self.explanation.query_columns, self.explanation.target_columns
        return {
            **{name: value[layer, queries] for name, value in of_query.items()},
            **{name: value[layer, targets] for name, value in of_target.items()},
        }

    def target_note(self, layer: int, target: int) -> str:
        """Return what to say of a target."""
        of_target = self.explanation.target_columns
        values = {name: value[layer, target].item() for name, value in of_target.items()}
        return self.explanation.target_note.format_map(values)


def check_assigner(assigner: OneToManyAssigner, num_queries: int) -> None:
    """Refuse settings that ask for more queries per target than there are.

    Raises:
        UsageError: k exceeds Q.
    """
    if assigner.k > num_queries:
        raise UsageError("k", f"is {assigner.k}, but the model has only {num_queries} queries")


def rematch(image: TracedImage, assigner: OneToManyAssigner | StoredScheme) -> ImageMatching:
    """Assign the queries of a traced image.

    With the assigner of the trace this repeats what the assigners decided when it was made,
    bit for bit. What a trace stores of other schemes than MS-DETR's is taken from it.

    Args:
        image: Of a trace.
        assigner: Settings of the one-to-many assignment, or the trace's own stored scheme.

    Raises:
        UsageError: k exceeds the number of queries.
    """
    if isinstance(assigner, StoredScheme):
        return stored_matching(image)
    check_assigner(assigner, image.u.shape[-1])
    iou = iou_of(image)
    steps = score_steps(image, assigner, iou)
    if not image.num_targets:
        steps = replace(steps, candidate=torch.full_like(steps.candidate, -1))
    slots = torch.arange(steps.best_queries.shape[-1])
    used = slots < steps.num_positives[..., None]
    queries = torch.where(used, steps.best_queries, -1)
    return _matching(image, iou, explain_steps(steps, assigner.k), queries)


def stored_matching(image: TracedImage) -> ImageMatching:
    """Take the one-to-many assignment of an image from its trace.

    Args:
        image: Of a trace of another scheme than MS-DETR's.
    """
    assert image.explanation is not None
    return _matching(image, iou_of(image), image.explanation, image.one_to_many_queries)


def _matching(
    image: TracedImage, iou: Tensor, explanation: Explanation, one_to_many_queries: Tensor
) -> ImageMatching:
    one_to_one_queries = solve_one_to_one(image)
    return ImageMatching(
        iou=iou,
        scores=explanation.score,
        ranks=ranks_of(explanation.score),
        explanation=explanation,
        one_to_many=explanation.paired,
        one_to_many_queries=one_to_many_queries,
        one_to_one=mark_queries(one_to_one_queries[..., None], image.u.shape[-1]),
        one_to_one_queries=one_to_one_queries,
    )


def iou_of(image: TracedImage) -> Tensor:
    """Compute the IoU of the one-to-many branch's boxes with the targets, as [N, T, Q] float32."""
    boxes = image.one_to_many.boxes_cxcywh[:, None]
    return pairwise_iou(boxes, image.boxes_cxcywh[None])[:, 0]


def score_steps(image: TracedImage, assigner: OneToManyAssigner, iou: Tensor) -> OneToManySteps:
    """Carry out the steps of the one-to-many assignment.

    Args:
        image: Of a trace.
        assigner: Settings.
        iou: [N, T, Q] as of :func:`iou_of`, so that several settings can share it.

    Returns:
        Steps without the image dimension: [N, T, Q], [N, Q], [N, T] and [N, T, J].
    """
    scores = assigner.combine(image.one_to_many.probabilities, iou)
    num_targets = image.num_targets
    valid = torch.ones(1, num_targets, dtype=torch.bool)
    if num_targets == 0:
        # One padding target: there is no highest score among none.
        scores = torch.full((scores.shape[0], 1, scores.shape[2]), -torch.inf)
        valid = torch.zeros(1, 1, dtype=torch.bool)
    steps = assigner.steps_of_scores(scores[:, None], valid, image.u[:, None])
    return OneToManySteps(
        scores=steps.scores[:, 0, :num_targets],
        candidate=steps.candidate[:, 0],
        candidate_score=steps.candidate_score[:, 0],
        above_threshold=steps.above_threshold[:, 0],
        forced=steps.forced[:, 0],
        kept=steps.kept[:, 0],
        num_positives=steps.num_positives[:, 0, :num_targets],
        best_queries=steps.best_queries[:, 0, :num_targets],
    )


def solve_one_to_one(image: TracedImage) -> Tensor:
    """Find the one-to-one query of every target, as [N, T] int64; -1 for targets without one."""
    counts = torch.tensor([image.num_targets])
    return solve_together([image.hungarian_cost[:, None]], [counts])[0][:, 0]
