"""How many seeds it would take to decide."""

from __future__ import annotations

import math

from scipy import stats

from msdetr.study.interval import LEVEL

POWER = 0.8
MAX_SEEDS = 1000


def power_of(difference: float, spread: float, num_seeds: int) -> float:
    """Chance that a paired t interval of so many seeds excludes 0.

    Args:
        difference: True mean difference.
        spread: True standard deviation of the differences, above 0.
        num_seeds: At least 2.
    """
    degrees = num_seeds - 1
    critical = float(stats.t.ppf((1 + LEVEL) / 2, degrees))
    # Further out scipy's noncentral t is NaN; the chance is 1 there, that of the far side 0.
    shift = min(abs(difference) * math.sqrt(num_seeds) / spread, 1000.0)
    near = float(stats.nct.sf(critical, degrees, shift))
    far = float(stats.nct.cdf(-critical, degrees, shift)) if shift < 10 else 0.0
    return near + far


def seeds_for(difference: float, spread: float) -> int | None:
    """Fewest seeds whose paired t interval excludes 0 with a chance of 80%.

    Returns:
        At least 2; None if more than ``MAX_SEEDS`` would be needed.

    Source: Cohen, Statistical Power Analysis for the Behavioral Sciences, 1988, section 2.
    """
    if spread == 0:
        return 2 if difference else None
    if difference == 0 or power_of(difference, spread, MAX_SEEDS) < POWER:
        return None
    low, high = 1, MAX_SEEDS
    while high - low > 1:
        middle = (low + high) // 2
        if power_of(difference, spread, middle) < POWER:
            low = middle
        else:
            high = middle
    return high


def assumed_difference(mean: float, smallest_effect: float) -> float:
    """Take for the true difference the observed one or the smallest of interest, the larger."""
    return max(abs(mean), smallest_effect)


def seeds_still_needed(
    mean: float, spread: float, num_seeds: int, smallest_effect: float
) -> int | None:
    """Seeds to add to those that there are.

    Assumes that the true difference is :func:`assumed_difference` and that the spread is the
    observed one: with few seeds both are rough guesses.

    Returns:
        At least 1: what is undecided needs another seed. None for more than ``MAX_SEEDS`` in all.
    """
    total = seeds_for(assumed_difference(mean, smallest_effect), spread)
    return None if total is None else max(1, total - num_seeds)
