"""Means over the seeds of an arm, and what they differ by from the baseline's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from msdetr.study.interval import Interval
from msdetr.study.paired import paired_interval

Values = Mapping[str, float | None]
"""Numbers of one cell by name; None where one is undefined."""


@dataclass(frozen=True)
class SeedMean:
    """One number of an arm.

    Attributes:
        mean: Over the seeds where it is defined; None if it is nowhere.
        spread: Their standard deviation; None with fewer than two.
        num_seeds: How many these are.
        difference: Mean difference from the baseline, over the seeds that both have; None
            without any, and of the baseline itself.
        interval: Paired t interval of it; None with fewer than two such seeds. One of many in a
            report, and not corrected for their number: it describes, and decides nothing.
    """

    mean: float | None
    spread: float | None
    num_seeds: int
    difference: float | None = None
    interval: Interval | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "mean": self.mean,
            "spread": self.spread,
            "num_seeds": self.num_seeds,
            "difference": self.difference,
            "interval": None if self.interval is None else self.interval.to_dict(),
        }


def mean_over_seeds(
    arm: Mapping[int, Values], baseline: Mapping[int, Values] | None
) -> dict[str, SeedMean]:
    """Average every number of an arm over its seeds.

    Args:
        arm: Numbers of its cells by seed.
        baseline: Likewise of the baseline; None where the arm is the baseline.

    Returns:
        By name, in the order of their appearance.
    """
    return {
        name: _mean(_defined(arm, name), None if baseline is None else _defined(baseline, name))
        for name in names_of(arm.values())
    }


def names_of(cells: Iterable[Values]) -> list[str]:
    """List the names that any cell has a number of, in the order of their appearance."""
    return list(dict.fromkeys(name for values in cells for name in values))


def _mean(arm: Mapping[int, float], baseline: Mapping[int, float] | None) -> SeedMean:
    values = np.array(list(arm.values()))
    if not len(values):
        return SeedMean(None, None, 0)
    spread = float(values.std(ddof=1)) if len(values) >= 2 else None
    common = sorted(arm.keys() & (baseline or {}).keys())
    if baseline is None or not common:
        return SeedMean(float(values.mean()), spread, len(values))
    differences = np.array([arm[seed] - baseline[seed] for seed in common])
    interval = paired_interval(differences) if len(common) >= 2 else None
    return SeedMean(float(values.mean()), spread, len(values), float(differences.mean()), interval)


def _defined(cells: Mapping[int, Values], name: str) -> dict[int, float]:
    found = {seed: values.get(name) for seed, values in cells.items()}
    return {seed: value for seed, value in found.items() if value is not None}
