"""Intervals of a difference, as all parts of a comparison give them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A 95% interval.

    Attributes:
        low: Lower end.
        high: Upper end.
    """

    low: float
    high: float

    def __str__(self) -> str:
        """Both ends with their signs, as in ``-0.001 to +0.017``."""
        return f"{signed(self.low)} to {signed(self.high)}"

    def is_within(self, bound: float) -> bool:
        """Tell whether no value lies beyond -bound or +bound."""
        return -bound <= self.low and self.high <= bound

    def to_dict(self) -> dict[str, float]:
        """As JSON values."""
        return {"low": self.low, "high": self.high}


def signed(value: float) -> str:
    """Write a difference with its sign and three digits; what rounds to 0 has a plus."""
    return f"{round(value, 3) + 0.0:+.3f}"


def percentile_interval(values: NDArray[np.float64]) -> Interval:
    """Take the middle 95% of resampled values; those that are NaN are left out.

    Raises:
        ValueError: None is a number.
    """
    defined = values[~np.isnan(values)]
    if not defined.size:
        raise ValueError("no resample has a value")
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(defined, [tail, 1 - tail])
    return Interval(float(low), float(high))
