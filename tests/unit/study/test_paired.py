"""Differences over seeds: against numbers worked out by hand and by other routes."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from scipy import stats

from msdetr.study.interval import Interval, percentile_interval
from msdetr.study.paired import compare_arms, compare_pair, holm, sign_flip_p

ONE_TO_ONE = {42: 0.515, 43: 0.517, 44: 0.514}
MIXED = {42: 0.527, 43: 0.522, 44: 0.521}


def test_twins_that_look_like_a_win_with_every_seed() -> None:
    found = compare_pair("mixed", MIXED, "one_to_one", ONE_TO_ONE)
    assert found.differences == pytest.approx({42: 0.012, 43: 0.005, 44: 0.007})
    assert found.mean == pytest.approx(0.008)
    assert found.spread == pytest.approx(np.sqrt(13) / 1000)
    # t(2) at 0.975 is 4.302653.
    half = 4.302653 * np.sqrt(13) / 1000 / np.sqrt(3)
    assert found.paired.low == pytest.approx(0.008 - half, abs=1e-8)
    assert found.paired.high == pytest.approx(0.008 + half, abs=1e-8)
    assert str(found.paired) == "-0.001 to +0.017"
    assert found.sign_flip_p == found.smallest_sign_flip_p == 0.25
    assert found.num_seeds == 3


def test_unpaired_interval_and_p_are_scipys() -> None:
    ours, theirs = np.array([0.5, 0.54, 0.49, 0.52]), np.array([0.48, 0.5, 0.51, 0.47])
    seeds = range(4)
    found = compare_pair(
        *("a", dict(zip(seeds, ours.tolist(), strict=True))),
        *("b", dict(zip(seeds, theirs.tolist(), strict=True))),
    )
    welch = stats.ttest_ind(ours, theirs, equal_var=False).confidence_interval(0.95)
    assert (found.unpaired.low, found.unpaired.high) == pytest.approx((welch.low, welch.high))
    assert found.t_p == pytest.approx(stats.ttest_rel(ours, theirs).pvalue)
    assert found.correlation == pytest.approx(np.corrcoef(ours, theirs)[0, 1])


def test_pairing_helps_where_seeds_correlate() -> None:
    base = {seed: 0.5 + 0.01 * seed for seed in range(5)}
    arm = {seed: value + 0.002 + 0.0001 * (seed % 2) for seed, value in base.items()}
    found = compare_pair("arm", arm, "base", base)
    assert found.correlation == pytest.approx(1, abs=1e-3)
    assert found.paired.low > 0 > found.unpaired.low


def test_only_common_seeds_count() -> None:
    found = compare_pair("a", {1: 0.5, 2: 0.6, 3: 9.0}, "b", {1: 0.4, 2: 0.5, 4: 9.0})
    assert list(found.differences) == [1, 2]
    assert found.correlation is None


@pytest.mark.parametrize("num_seeds", [2, 3, 5, 6, 8])
def test_sign_flips_are_enumerated(num_seeds: int) -> None:
    differences = np.random.default_rng(num_seeds).normal(0.5, 1, num_seeds)
    means = [
        np.mean(np.array(signs) * differences)
        for signs in itertools.product((-1, 1), repeat=num_seeds)
    ]
    extreme = np.abs(means) >= abs(differences.mean()) - 1e-12
    assert sign_flip_p(differences) == pytest.approx(extreme.mean())


@pytest.mark.parametrize(("num_seeds", "smallest"), [(3, 0.25), (5, 0.0625), (6, 0.03125)])
def test_smallest_sign_flip_p(num_seeds: int, smallest: float) -> None:
    arm = {seed: 0.5 + 0.01 * seed for seed in range(num_seeds)}
    found = compare_pair("a", arm, "b", dict.fromkeys(arm, 0.4))
    assert found.sign_flip_p == found.smallest_sign_flip_p == smallest
    note = found.sign_flip_note()
    assert (note is None) == (num_seeds >= 6)
    if note is not None:
        assert f"cannot be below {smallest:g}" in note


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.6]) == [1.0, 1.0]
    assert holm([]) == []


def test_arms_are_corrected_for_their_number() -> None:
    base = dict.fromkeys(range(5), 0.5)
    arms = {
        "base": base,
        "far": {seed: 0.6 + 0.001 * seed for seed in base},
        "near": {seed: 0.5 + 0.001 * (seed - 1.5) for seed in base},
        "alone": {0: 0.7},
    }
    far, near = compare_arms(arms, "base")
    assert (far.arm, near.arm) == ("far", "near")
    assert far.holm_t_p == pytest.approx(2 * far.t_p)
    assert near.holm_t_p == near.t_p
    assert far.holm_sign_flip_p == pytest.approx(0.125)


def test_equal_differences_leave_no_doubt() -> None:
    base = {1: 0.5, 2: 0.75}
    found = compare_pair("a", {1: 0.75, 2: 1.0}, "b", base)
    assert (found.paired, found.t_p) == (Interval(0.25, 0.25), 0.0)
    same = compare_pair("b", base, "b", base)
    assert (same.paired, same.t_p, same.sign_flip_p) == (Interval(0, 0), 1.0, 1.0)


def test_constant_arms_have_a_point_for_an_interval() -> None:
    found = compare_pair("a", {1: 0.75, 2: 0.75, 3: 0.75}, "b", {1: 0.5, 2: 0.5, 3: 0.5})
    assert found.unpaired == Interval(0.25, 0.25)
    assert found.correlation is None


def test_one_seed_is_refused() -> None:
    with pytest.raises(ValueError, match="share 1 seeds; it takes two"):
        compare_pair("a", {1: 0.5}, "b", {1: 0.4})


def test_json() -> None:
    content = compare_pair("mixed", MIXED, "one_to_one", ONE_TO_ONE).to_dict()
    again = json.loads(json.dumps(content))
    assert again["differences"] == pytest.approx({"42": 0.012, "43": 0.005, "44": 0.007})
    assert set(again["paired"]) == {"low", "high"}


def test_percentiles_leave_out_what_is_undefined() -> None:
    values = np.append(np.arange(101.0), np.nan)
    found = percentile_interval(values)
    assert (found.low, found.high) == pytest.approx((2.5, 97.5))
    with pytest.raises(ValueError, match="no resample"):
        percentile_interval(np.array([np.nan]))
