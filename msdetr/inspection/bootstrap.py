"""Means over targets with intervals that respect that targets of one image belong together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_RESAMPLES = 2000
_SEED = 0
_LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean with its bootstrap interval.

    Attributes:
        mean: Over all targets.
        low: Lower end of the 95% interval.
        high: Upper end.
    """

    mean: float
    low: float
    high: float

    def to_dict(self) -> dict[str, float]:
        """Return the estimate as JSON values."""
        return {"mean": self.mean, "low": self.low, "high": self.high}

    def lines(self) -> str:
        """Format the mean, and below it the interval."""
        return f"{self.mean:.3f}\n{self.low:.3f}..{self.high:.3f}"


def bootstrap_means(values: Sequence[Tensor]) -> list[Estimate]:
    """Estimate means over targets by drawing images with replacement.

    Images without targets are left out. The draws are the same for the same number of images, so
    that differences of two models can be estimated from the differences of their values.

    Args:
        values: Per image [T, M], of M measures.

    Returns:
        M estimates: percentile intervals of 2000 resamples.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.
    """
    present = [value for value in values if len(value)]
    sums: NDArray[np.float64] = torch.stack([v.double().sum(dim=0) for v in present]).numpy()
    counts = np.array([len(value) for value in present], dtype=np.float64)
    draws = np.random.default_rng(_SEED).multinomial(
        len(present), np.full(len(present), 1 / len(present)), size=_RESAMPLES
    )
    resampled = (draws @ sums) / (draws @ counts)[:, None]
    tail = 100 * (1 - _LEVEL) / 2
    low, high = np.percentile(resampled, [tail, 100 - tail], axis=0)
    means = sums.sum(axis=0) / counts.sum()
    return [
        Estimate(float(mean), float(a), float(b))
        for mean, a, b in zip(means, low, high, strict=True)
    ]
