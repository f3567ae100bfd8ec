"""What a suppressor does to the queries of every target: which it suppresses, and by which."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import torch
from torch import Tensor

from msdetr.assignment.costs import pairwise_iou

SAME_OBJECT_IOU = 0.5
"""A query belongs to the target that its box overlaps most, if by at least this IoU."""
KEPT_SHARE = 0.5
"""A query is suppressed if less than this share of its probability is left."""

Outcome = Literal["kept", "duplicate", "neighbour", "background", "alone"]


@dataclass(frozen=True)
class Suppression:
    """A query that learns to detect a target, before and after the suppressor.

    Attributes:
        target: Index of the target.
        query: The query.
        is_pick: Whether it is the target's one-to-one query.
        iou: IoU of its box with the target's.
        before: Probability of the target's class in the last decoder layer.
        after: The same after the suppressor.
        learned: Attention weight of all learned keys together; weights are means over heads.
        own: Weight of all queries that belong to the same target.
        by: The query that it attends to most; -1 if it is the most confident and sees none.
        weight: Weight of that query.
        by_iou: IoU of both queries' boxes.
        by_target: Target that the other query belongs to; -1 for none.
    """

    target: int
    query: int
    is_pick: bool
    iou: float
    before: float
    after: float
    learned: float
    own: float
    by: int
    weight: float
    by_iou: float
    by_target: int

    @property
    def outcome(self) -> Outcome:
        """Kept; or suppressed, and by what: a query of its target, of another, of none, nobody."""
        if self.after >= KEPT_SHARE * self.before:
            return "kept"
        if self.by < 0:
            return "alone"
        if self.by_target < 0:
            return "background"
        return "duplicate" if self.by_target == self.target else "neighbour"

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Suppression:
        """Read what ``to_dict`` made.

        Raises:
            KeyError, TypeError, ValueError: If it is something else.
        """
        kinds = {"bool": bool, "float": float, "int": int}
        read = {f.name: kinds[str(f.type)](values[f.name]) for f in fields(cls)}
        return cls(**read)


@dataclass(frozen=True, eq=False, kw_only=True)
class SuppressorView:
    """One image as the suppressor sees it.

    Attributes:
        weights: [Q, Q + G] float, attention of rows to queries and learned keys, mean over heads.
        boxes: [Q, 4] float (cx, cy, w, h), of the last decoder layer.
        before: [T, Q] float, probability of each target's class before the suppressor.
        after: [T, Q] float, the same after it.
        targets: [T, 4] float (cx, cy, w, h).
        paired: [T, J] int64, queries that one-to-many supervision gives each target; -1 for none.
        picks: [T] int64, its one-to-one query; -1 for none.
    """

    weights: Tensor
    boxes: Tensor
    before: Tensor
    after: Tensor
    targets: Tensor
    paired: Tensor
    picks: Tensor


def find_suppressions(view: SuppressorView) -> tuple[Suppression, ...]:
    """List the queries of every target, by descending probability before the suppressor."""
    if not len(view.targets):
        return ()
    fits = pairwise_iou(view.boxes[None, None], view.targets[None])[0, 0]
    best = fits.max(dim=0)
    belongs = torch.where(best.values >= SAME_OBJECT_IOU, best.indices, -1)
    found = []
    for target in range(len(view.targets)):
        chosen = torch.cat([view.paired[target], view.picks[target, None]])
        queries = torch.unique(chosen[chosen >= 0])
        order = view.before[target, queries].argsort(descending=True, stable=True)
        found += [
            _suppression(view, fits, belongs, target, query) for query in queries[order].tolist()
        ]
    return tuple(found)


def _suppression(
    view: SuppressorView, fits: Tensor, belongs: Tensor, target: int, query: int
) -> Suppression:
    """Describe a query of a target.

    Args:
        view: Of the image.
        fits: [T, Q] IoU of targets and queries.
        belongs: [Q] target of every query; -1 for none.
        target: Index of the target.
        query: Index of the query.
    """
    num_queries = view.boxes.shape[0]
    seen = view.weights[query, :num_queries]
    # Hidden queries weigh nothing at all.
    by = int(seen.argmax()) if seen.any() else -1
    overlap = pairwise_iou(view.boxes[None, None, [query]], view.boxes[None, [by]])
    return Suppression(
        target=target,
        query=query,
        is_pick=query == int(view.picks[target]),
        iou=float(fits[target, query]),
        before=float(view.before[target, query]),
        after=float(view.after[target, query]),
        learned=float(view.weights[query, num_queries:].sum()),
        own=float(seen[belongs == target].sum()),
        by=by,
        weight=float(seen.max()),
        by_iou=float(overlap) if by >= 0 else 0.0,
        by_target=int(belongs[by]) if by >= 0 else -1,
    )
