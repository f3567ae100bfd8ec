"""Means over seeds and differences from the baseline, by hand."""

from __future__ import annotations

import json
import math

import pytest

from msdetr.study.seed_means import mean_over_seeds, names_of


def test_means_and_paired_differences() -> None:
    arm = {1: {"ap": 0.5}, 2: {"ap": 0.6}, 3: {"ap": 0.9}}
    baseline = {1: {"ap": 0.4}, 2: {"ap": 0.3}, 4: {"ap": 0.0}}
    found = mean_over_seeds(arm, baseline)["ap"]
    assert found.mean == pytest.approx(2 / 3)
    assert found.num_seeds == 3
    assert found.difference == pytest.approx(0.2)
    assert found.interval is not None
    # t of one degree of freedom times the standard error 0.1.
    half = 12.7062 * 0.1
    assert found.interval.high == pytest.approx(0.2 + half, rel=1e-4)
    assert json.loads(json.dumps(found.to_dict()))["num_seeds"] == 3


def test_undefined_values_are_left_out() -> None:
    arm = {1: {"ap": None, "ar": 0.5}, 2: {"ap": 0.6}}
    found = mean_over_seeds(arm, {1: {"ap": 0.5}, 2: {"ap": 0.5}})
    assert list(found) == ["ap", "ar"]
    assert (found["ap"].mean, found["ap"].spread, found["ap"].interval) == (0.6, None, None)
    assert found["ap"].difference == pytest.approx(0.1)
    assert (found["ar"].mean, found["ar"].difference) == (0.5, None)
    nothing = mean_over_seeds({1: {"ap": None}}, None)["ap"]
    assert (nothing.mean, nothing.num_seeds) == (None, 0)


def test_baseline_has_no_difference() -> None:
    found = mean_over_seeds({1: {"ap": 0.5}, 2: {"ap": 0.7}}, None)["ap"]
    assert found.difference is None
    assert found.spread == pytest.approx(0.1 * math.sqrt(2))


def test_names_keep_their_order() -> None:
    assert names_of([{"b": 1.0}, {"a": 1.0, "b": 2.0}]) == ["b", "a"]
