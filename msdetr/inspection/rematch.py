"""Assignments recomputed from a trace, with the settings of the model or with others."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor

from msdetr.assignment import OneToManyAssigner, OneToManySteps
from msdetr.assignment.costs import pairwise_iou
from msdetr.assignment.solve import solve_together
from msdetr.errors import UsageError
from msdetr.inspection.trace import TracedImage


class Reason(IntEnum):
    """Why a query is not a one-to-many positive of a target: the first that holds.

    PAIRED: it is one.
    LOST_TO_TARGET: its candidate is another target.
    DROPPED_BY_CAP: it was positive, but more than the cap allows were.
    BELOW_THRESHOLD: its score lies below the threshold.
    BEYOND_COUNT: its rank for the target exceeds n_t, the positives that the target attracts.
    OVER_K: its rank exceeds k.
    """

    PAIRED = 0
    LOST_TO_TARGET = 1
    DROPPED_BY_CAP = 2
    BELOW_THRESHOLD = 3
    BEYOND_COUNT = 4
    OVER_K = 5


@dataclass(frozen=True, eq=False)
class ImageMatching:
    """Both assignments of an image, and how the one-to-many assigner came to its.

    Attributes:
        iou: [N, T, Q] float32, of the one-to-many branch's boxes.
        scores: [N, T, Q] float32.
        ranks: [N, T, Q] int64 from 1, by descending score for the target, then lowest query.
        candidate: [N, Q] int64, the target with the query's highest score; -1 without targets.
        above_threshold: [N, Q] bool, True where that score reaches the threshold.
        forced: [N, Q] bool, True where the query is the best one of some target.
        capped: [N, Q] bool, True for positives that the cap removed.
        num_positives: [N, T] int64, n_t: positives kept by the cap whose candidate is t.
        one_to_many: [N, T, Q] bool, the pairs.
        one_to_many_queries: [N, T, J] int64, the same by rank, J = min(k, Q); -1 on unused slots.
        one_to_one: [N, T, Q] bool, the pairs.
        one_to_one_queries: [N, T] int64; -1 for targets without a query.
        reasons: [N, T, Q] uint8, a :class:`Reason` each.
    """

    iou: Tensor
    scores: Tensor
    ranks: Tensor
    candidate: Tensor
    above_threshold: Tensor
    forced: Tensor
    capped: Tensor
    num_positives: Tensor
    one_to_many: Tensor
    one_to_many_queries: Tensor
    one_to_one: Tensor
    one_to_one_queries: Tensor
    reasons: Tensor


def reason_text(reason: int, candidate: int) -> str:
    """Reason as in ``assignments.csv``; empty for pairs.

    Args:
        reason: A :class:`Reason`.
        candidate: The query's candidate.
    """
    if reason == Reason.PAIRED:
        return ""
    if reason == Reason.LOST_TO_TARGET:
        return f"lost_to_target:{candidate}"
    return Reason(reason).name.lower()


def check_assigner(assigner: OneToManyAssigner, num_queries: int) -> None:
    """Refuse settings that ask for more queries per target than there are.

    Raises:
        UsageError: k exceeds Q.
    """
    if assigner.k > num_queries:
        raise UsageError("k", f"is {assigner.k}, but the model has only {num_queries} queries")


def rematch(image: TracedImage, assigner: OneToManyAssigner) -> ImageMatching:
    """Assign the queries of a traced image.

    With the assigner of the trace this repeats what the assigners decided when it was made,
    bit for bit.

    Args:
        image: Of a trace.
        assigner: Settings of the one-to-many assignment.

    Raises:
        UsageError: k exceeds the number of queries.
    """
    check_assigner(assigner, image.u.shape[-1])
    iou = iou_of(image)
    steps = score_steps(image, assigner, iou)
    slots = torch.arange(steps.best_queries.shape[-1])
    used = slots < steps.num_positives[..., None]
    one_to_many_queries = torch.where(used, steps.best_queries, -1)
    one_to_one_queries = solve_one_to_one(image)
    one_to_many = _mark_pairs(one_to_many_queries, image.u.shape[-1])
    ranks = _ranks(steps.scores)
    candidate = steps.candidate if image.num_targets else torch.full_like(steps.candidate, -1)
    return ImageMatching(
        iou=iou,
        scores=steps.scores,
        ranks=ranks,
        candidate=candidate,
        above_threshold=steps.above_threshold,
        forced=steps.forced,
        capped=steps.capped,
        num_positives=steps.num_positives,
        one_to_many=one_to_many,
        one_to_many_queries=one_to_many_queries,
        one_to_one=_mark_pairs(one_to_one_queries[..., None], image.u.shape[-1]),
        one_to_one_queries=one_to_one_queries,
        reasons=_reasons(steps, one_to_many, ranks),
    )


def iou_of(image: TracedImage) -> Tensor:
    """IoU of the one-to-many branch's boxes with the targets, as [N, T, Q] float32."""
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
    """One-to-one query of every target, as [N, T] int64; -1 for targets without one."""
    counts = torch.tensor([image.num_targets])
    return solve_together([image.hungarian_cost[:, None]], [counts])[0][:, 0]


def _ranks(scores: Tensor) -> Tensor:
    order = scores.sort(dim=-1, descending=True, stable=True).indices
    places = torch.arange(1, scores.shape[-1] + 1).expand_as(order)
    return torch.empty_like(order).scatter_(-1, order, places)


def _mark_pairs(queries: Tensor, num_queries: int) -> Tensor:
    """[N, T, Q] bool, True at the queries [N, T, J]; -1 marks nothing."""
    index = torch.where(queries < 0, num_queries, queries)
    marked = torch.zeros(*queries.shape[:2], num_queries + 1, dtype=torch.bool)
    return marked.scatter_(2, index, value=True)[..., :num_queries]


def _reasons(steps: OneToManySteps, paired: Tensor, ranks: Tensor) -> Tensor:
    targets = torch.arange(paired.shape[1])[None, :, None]
    reasons = torch.full(paired.shape, Reason.OVER_K, dtype=torch.uint8)
    # From the last to the first, so that the first that holds stays.
    reasons[ranks > steps.num_positives[..., None]] = Reason.BEYOND_COUNT
    reasons[~steps.above_threshold[:, None].expand_as(paired)] = Reason.BELOW_THRESHOLD
    reasons[steps.capped[:, None].expand_as(paired)] = Reason.DROPPED_BY_CAP
    reasons[steps.candidate[:, None] != targets] = Reason.LOST_TO_TARGET
    reasons[paired] = Reason.PAIRED
    return reasons
