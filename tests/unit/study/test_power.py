"""Seeds that would decide: textbook values, and the power that they really have."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from msdetr.study.power import power_of, seeds_for, seeds_still_needed


@pytest.mark.parametrize(("effect", "expected"), [(0.2, 199), (0.5, 34), (0.8, 15)])
def test_textbook_sample_sizes(effect: float, expected: int) -> None:
    assert seeds_for(effect, 1.0) == expected
    assert seeds_for(-effect, 1.0) == expected
    assert seeds_for(effect / 100, 0.01) == expected


def test_power_is_the_share_of_studies_that_decide() -> None:
    draws = np.random.default_rng(0).normal(1.2, 1, (20_000, 6))
    decided = stats.ttest_1samp(draws, 0, axis=1).pvalue < 0.05
    assert power_of(1.2, 1.0, 6) == pytest.approx(decided.mean(), abs=0.01)


@pytest.mark.parametrize("spread", [1e-12, 1e-3, 1e-2])
def test_sharp_differences_need_two(spread: float) -> None:
    assert power_of(1.0, spread, 30) == pytest.approx(1)
    assert seeds_for(1.0, spread) == 2


def test_hopeless_differences_have_no_number() -> None:
    assert seeds_for(1e-4, 1.0) is None
    assert seeds_for(0.0, 1.0) is None
    assert seeds_for(0.0, 0.0) is None


def test_larger_of_observed_and_interesting_difference_counts() -> None:
    assert seeds_still_needed(0.001, 0.01, 3, smallest_effect=0.005) == 34 - 3
    assert seeds_still_needed(-0.008, 0.01, 3, smallest_effect=0.005) == 15 - 3
    assert seeds_still_needed(0.008, 0.01, 20, smallest_effect=0.005) == 1
