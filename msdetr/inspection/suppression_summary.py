"""Statistics of a suppressor over the images of a trace, and its table as a file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TextIO

from msdetr.csv_files import CsvWriter
from msdetr.inspection.suppression import Suppression

MAX_NAMED = 50
"""Lost targets that a summary names."""


@dataclass(frozen=True)
class LostTarget:
    """A target whose queries are all suppressed.

    Attributes:
        image_id: Image of the target.
        target: Index of the target.
        query: Its most probable query before the suppressor.
        before: That query's probability of the target's class before the suppressor.
        after: The same after it.
        outcome: By what it is suppressed; "neighbour" and "background" are the wrong ones.
        by: The query that it attends to most; -1 for none.
        by_target: Target that this one belongs to; -1 for none.
        weight: Its attention weight.
    """

    image_id: int
    target: int
    query: int
    before: float
    after: float
    outcome: str
    by: int
    by_target: int
    weight: float


@dataclass(frozen=True)
class SuppressionSummary:
    """What a suppressor did to the queries that learn to detect targets.

    Attributes:
        num_queries: Queries of targets; one that serves two targets counts twice.
        outcomes: How many of them were kept, or suppressed and by what, by name.
        targets_kept: Targets with so many queries kept: none, one, more.
        picks_kept: Share of one-to-one queries that are kept; None without any.
        learned: Mean weight of the learned keys; None without queries.
        own: Mean weight of the queries of the same target.
        lost: Targets without any query kept, the most probable ones before it; at most 50.
        num_lost: All of them.
    """

    num_queries: int
    outcomes: dict[str, int]
    targets_kept: dict[str, int]
    picks_kept: float | None
    learned: float | None
    own: float | None
    lost: tuple[LostTarget, ...]
    num_lost: int


def summarize_suppressions(
    images: Iterable[tuple[int, Sequence[Suppression]]],
) -> SuppressionSummary:
    """Describe the suppressions of images, given with their ids."""
    every: list[Suppression] = []
    kept = {"none": 0, "one": 0, "more": 0}
    lost: list[LostTarget] = []
    for image_id, found in images:
        every += found
        for queries in _by_target(found).values():
            number = sum(each.outcome == "kept" for each in queries)
            kept["none" if number == 0 else "one" if number == 1 else "more"] += 1
            if number == 0:
                lost.append(_lost(image_id, queries[0]))
    lost.sort(key=lambda each: -each.before)
    names = ("kept", "duplicate", "neighbour", "background", "alone")
    return SuppressionSummary(
        num_queries=len(every),
        outcomes={name: sum(each.outcome == name for each in every) for name in names},
        targets_kept=kept,
        picks_kept=_mean([each.outcome == "kept" for each in every if each.is_pick]),
        learned=_mean([each.learned for each in every]),
        own=_mean([each.own for each in every]),
        lost=tuple(lost[:MAX_NAMED]),
        num_lost=len(lost),
    )


class SuppressionTable:
    """Writes ``suppressions.csv``: one row per image, target and query of the target.

    Args:
        file: Open for writing text without newline translation.
        category_names: [K] name of every label.
    """

    def __init__(self, file: TextIO, category_names: Sequence[str]) -> None:
        self._names = category_names
        self._writer = CsvWriter(file)
        columns = (
            *("image", "target", "category", "query", "is_pick", "iou", "before", "after"),
            *("outcome", "by", "weight", "by_iou", "by_target", "own", "learned"),
        )
        self._writer.write(columns)

    def write(self, image_id: int, labels: Sequence[int], found: Sequence[Suppression]) -> None:
        """Append the rows of an image; ``labels`` are those of its targets."""
        for each in found:
            probabilities = (f"{each.iou:.4f}", f"{each.before:.4f}", f"{each.after:.4f}")
            other = (each.by, f"{each.weight:.4f}", f"{each.by_iou:.4f}", each.by_target)
            self._writer.write(
                (
                    *(image_id, each.target, self._names[labels[each.target]], each.query),
                    *(int(each.is_pick), *probabilities, each.outcome, *other),
                    *(f"{each.own:.4f}", f"{each.learned:.4f}"),
                )
            )


def _by_target(found: Sequence[Suppression]) -> dict[int, list[Suppression]]:
    grouped: dict[int, list[Suppression]] = {}
    for each in found:
        grouped.setdefault(each.target, []).append(each)
    return grouped


def _lost(image_id: int, first: Suppression) -> LostTarget:
    return LostTarget(
        image_id=image_id,
        target=first.target,
        query=first.query,
        before=first.before,
        after=first.after,
        outcome=first.outcome,
        by=first.by,
        by_target=first.by_target,
        weight=first.weight,
    )


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
