"""One arm against the baseline, seed by seed: what the differences say of the two methods."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from msdetr.study.interval import LEVEL, Interval

# Assignments of signs that are enumerated; beyond 16 seeds, so many are drawn, from a fixed seed.
_NUM_ASSIGNMENTS = 2**16

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class PairedComparison:
    """Differences of a metric, arm minus baseline, over the seeds that both have.

    Attributes:
        arm: Name of the arm.
        baseline: Name of the baseline.
        differences: By seed.
        mean: Of the differences.
        spread: Their standard deviation.
        paired: t interval of the mean difference. Source: Student, Biometrika 6, 1908.
        unpaired: The same as though the seeds of the arms had nothing to do with each other.
            Source: Welch, Biometrika 34, 1947.
        correlation: Of the two arms over the seeds: pairing helps where it is positive. None with
            fewer than three seeds, or where an arm is the same with every seed.
        t_p: Two-sided p of the paired t test.
        sign_flip_p: Two-sided p of the exact test that flips signs of differences. Source: Fisher,
            The Design of Experiments, 1935, section 21.
        holm_t_p: ``t_p`` corrected for the number of arms.
        holm_sign_flip_p: ``sign_flip_p`` corrected for the number of arms.
    """

    arm: str
    baseline: str
    differences: Mapping[int, float]
    mean: float
    spread: float
    paired: Interval
    unpaired: Interval
    correlation: float | None
    t_p: float
    sign_flip_p: float
    holm_t_p: float
    holm_sign_flip_p: float

    @property
    def num_seeds(self) -> int:
        """Seeds that both arms have."""
        return len(self.differences)

    @property
    def smallest_sign_flip_p(self) -> float:
        """The smallest value that ``sign_flip_p`` can have with so many seeds."""
        return 2.0 ** (1 - self.num_seeds)

    def sign_flip_note(self) -> str | None:
        """Say where the sign-flip test cannot reach 0.05, whatever the differences."""
        if self.smallest_sign_flip_p <= 1 - LEVEL:
            return None
        return (
            f"with {self.num_seeds} seeds the sign-flip p cannot be below "
            f"{self.smallest_sign_flip_p:.4g}; it takes 6 to reach 0.05"
        )

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON values."""
        names = ("arm", "baseline", "mean", "spread", "correlation", "t_p", "sign_flip_p")
        return {
            **{name: getattr(self, name) for name in names},
            "holm_t_p": self.holm_t_p,
            "holm_sign_flip_p": self.holm_sign_flip_p,
            "smallest_sign_flip_p": self.smallest_sign_flip_p,
            "differences": {str(seed): value for seed, value in self.differences.items()},
            "paired": self.paired.to_dict(),
            "unpaired": self.unpaired.to_dict(),
        }


def compare_arms(
    values: Mapping[str, Mapping[int, float]], baseline: str
) -> list[PairedComparison]:
    """Compare every arm with the baseline and correct p for the number of arms.

    Args:
        values: The metric by arm and seed.
        baseline: Name of the arm that the others are compared with.

    Returns:
        One comparison per other arm, in their order; arms that share fewer than two seeds with
        the baseline are left out.
    """
    found = [
        compare_pair(name, arm, baseline, values[baseline])
        for name, arm in values.items()
        if name != baseline and len(arm.keys() & values[baseline].keys()) >= 2
    ]
    t, flips = ([getattr(each, key) for each in found] for key in ("t_p", "sign_flip_p"))
    return [
        replace(each, holm_t_p=one, holm_sign_flip_p=other)
        for each, one, other in zip(found, holm(t), holm(flips), strict=True)
    ]


def compare_pair(
    name: str, arm: Mapping[int, float], baseline: str, base: Mapping[int, float]
) -> PairedComparison:
    """Compare one arm with the baseline on the seeds that both have.

    Raises:
        ValueError: They share fewer than two seeds.
    """
    seeds = sorted(arm.keys() & base.keys())
    if len(seeds) < 2:
        raise ValueError(f"{name} and {baseline} share {len(seeds)} seeds; it takes two")
    ours, theirs = (np.array([each[seed] for seed in seeds]) for each in (arm, base))
    differences = ours - theirs
    t_p, flip_p = _t_test(differences), sign_flip_p(differences)
    return PairedComparison(
        arm=name,
        baseline=baseline,
        differences=dict(zip(seeds, differences.tolist(), strict=True)),
        mean=float(differences.mean()),
        spread=float(differences.std(ddof=1)),
        paired=paired_interval(differences),
        unpaired=welch_interval(ours, theirs),
        correlation=_correlate(ours, theirs),
        t_p=t_p,
        sign_flip_p=flip_p,
        holm_t_p=t_p,
        holm_sign_flip_p=flip_p,
    )


def paired_interval(differences: Floats) -> Interval:
    """Compute the t interval of the mean of [S] differences, S >= 2."""
    error = float(differences.std(ddof=1)) / math.sqrt(len(differences))
    return _t_interval(float(differences.mean()), error, len(differences) - 1)


def welch_interval(arm: Floats, baseline: Floats) -> Interval:
    """Compute the t interval of the difference of two means, of [S] values each, unpaired."""
    parts = np.array([arm.var(ddof=1) / len(arm), baseline.var(ddof=1) / len(baseline)])
    freedom = np.array([len(arm) - 1, len(baseline) - 1])
    total = float(parts.sum())
    degrees = total**2 / float((parts**2 / freedom).sum()) if total > 0 else 1.0
    return _t_interval(float(arm.mean() - baseline.mean()), math.sqrt(total), degrees)


def sign_flip_p(differences: Floats) -> float:
    """Compute the share of assignments of signs whose mean is as far from 0 as the observed."""
    result = stats.permutation_test(
        (differences,),
        np.mean,
        permutation_type="samples",
        vectorized=True,
        n_resamples=_NUM_ASSIGNMENTS,
        rng=np.random.default_rng(0),
    )
    return float(result.pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p values for their number.

    Source: Holm, A simple sequentially rejective multiple test procedure, 1979.
    """
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    corrected = [1.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(order):
        highest = max(highest, (len(p_values) - rank) * p_values[index])
        corrected[index] = min(1.0, highest)
    return corrected


def _t_interval(mean: float, error: float, degrees: float) -> Interval:
    half = float(stats.t.ppf((1 + LEVEL) / 2, degrees)) * error
    return Interval(mean - half, mean + half)


def _t_test(differences: Floats) -> float:
    if np.ptp(differences) == 0:
        return 1.0 if differences[0] == 0 else 0.0
    return float(stats.ttest_1samp(differences, 0.0).pvalue)


def _correlate(arm: Floats, baseline: Floats) -> float | None:
    if len(arm) < 3 or np.ptp(arm) == 0 or np.ptp(baseline) == 0:
        return None
    return float(stats.pearsonr(arm, baseline).statistic)
