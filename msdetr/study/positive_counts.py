"""What the one-to-many positives of targets say of a cell: how many, and which targets are found.

Counted on validation images with the trained model, as the training would assign them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from msdetr.inspection.positives import TargetPositives

MOST = 6
"""Targets with so many positives or more are one group."""


def summarize_positives(rows: Sequence[TargetPositives]) -> dict[str, float | None]:
    """Describe the positives of all targets by decoder layer.

    Returns:
        By measure and layer, as ``per_target/0``: mean positives of a target, mean candidates,
        the share of candidates that the cap drops, the share of targets without positives, and
        the share of targets that have none because of the cap.
    """
    layers: dict[int, list[TargetPositives]] = {}
    for row in rows:
        layers.setdefault(row.layer, []).append(row)
    by_layer = {layer: _of_layer(found) for layer, found in sorted(layers.items())}
    names = next(iter(by_layer.values()), {})
    return {f"{name}/{layer}": values[name] for name in names for layer, values in by_layer.items()}


def _of_layer(rows: Sequence[TargetPositives]) -> dict[str, float | None]:
    candidates, kept = (sum(getattr(row, key) for row in rows) for key in ("candidates", "kept"))
    without = sum(row.positives == 0 for row in rows)
    by_cap = sum(row.positives == 0 and row.candidates > 0 for row in rows)
    return {
        "per_target": sum(row.positives for row in rows) / len(rows),
        "candidates": candidates / len(rows),
        "dropped": 1 - kept / candidates if candidates else None,
        "without": without / len(rows),
        "without_by_cap": by_cap / len(rows),
    }


@dataclass(frozen=True)
class PositivesGroup:
    """Targets that had equally many positives in the last layer of an arm, over all its seeds.

    Attributes:
        name: How many: "0" to "5", "6+"; or "capped", those that the cap left without any.
        num_targets: How many targets these are, each counted once per seed.
        found: Share of them that the arm finds.
        found_by_baseline: Share of the same targets that the baseline finds with the same seed.
    """

    name: str
    num_targets: int
    found: float
    found_by_baseline: float

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return vars(self).copy()


@dataclass(frozen=True)
class CountedTargets:
    """The targets of one cell.

    Attributes:
        positives: Rows of the last decoder layer.
        numbers: Number of every target by its annotation id; others are not looked for.
        found: Numbers of those that the arm finds.
        found_by_baseline: Numbers of those that the baseline finds.
    """

    positives: Sequence[TargetPositives]
    numbers: Mapping[int, int]
    found: Set[int]
    found_by_baseline: Set[int]


def last_layer(rows: Iterable[TargetPositives]) -> list[TargetPositives]:
    """Keep the rows of the last decoder layer."""
    listed = list(rows)
    last = max((row.layer for row in listed), default=0)
    return [row for row in listed if row.layer == last]


def group_by_positives(cells: Iterable[CountedTargets]) -> tuple[PositivesGroup, ...]:
    """Group the targets of some cells by the number of positives that they had.

    Args:
        cells: Of one arm, one per seed that the baseline has too.
    """
    members: dict[str, list[tuple[bool, bool]]] = {}
    for cell in cells:
        for name, number in _names(cell):
            pair = (number in cell.found, number in cell.found_by_baseline)
            members.setdefault(name, []).append(pair)
    return tuple(_group(name, members[name]) for name in sorted(members, key=_order))


def _names(cell: CountedTargets) -> Iterator[tuple[str, int]]:
    for row in cell.positives:
        number = cell.numbers.get(row.annotation_id)
        if number is None:
            continue
        if row.positives:
            yield (str(row.positives) if row.positives < MOST else f"{MOST}+"), number
        else:
            yield ("capped" if row.candidates else "0"), number


def _order(name: str) -> int:
    return -1 if name == "capped" else int(name.removesuffix("+"))


def _group(name: str, members: Sequence[tuple[bool, bool]]) -> PositivesGroup:
    ours, theirs = (sum(found) / len(members) for found in zip(*members, strict=True))
    return PositivesGroup(name, len(members), ours, theirs)
