"""What positives per target are summarised to, by hand."""

from __future__ import annotations

import pytest

from msdetr.inspection.positives import TargetPositives
from msdetr.study.positive_counts import (
    CountedTargets,
    group_by_positives,
    last_layer,
    summarize_positives,
)


def row(target: int, candidates: int, kept: int, positives: int, layer: int = 0) -> TargetPositives:
    return TargetPositives(1, target, layer, candidates, kept, positives)


ROWS = [row(10, 4, 3, 2), row(11, 2, 0, 0), row(12, 0, 0, 0), row(13, 9, 7, 7)]


def test_summary_of_a_layer() -> None:
    found = summarize_positives([*ROWS, row(10, 1, 1, 1, layer=1)])
    assert found["per_target/0"] == 9 / 4
    assert found["candidates/0"] == 15 / 4
    assert found["dropped/0"] == pytest.approx(5 / 15)
    assert found["without/0"] == 2 / 4
    assert found["without_by_cap/0"] == 1 / 4
    assert found["per_target/1"] == 1
    assert summarize_positives([]) == {}
    assert summarize_positives([row(10, 0, 0, 0)])["dropped/0"] is None


def test_targets_by_positives_and_who_finds_them() -> None:
    numbers = {10: 1, 11: 2, 12: 3, 13: 4}
    cell = CountedTargets(ROWS, numbers, frozenset({1, 2}), frozenset({2, 4}))
    groups = {group.name: group for group in group_by_positives([cell, cell])}
    assert list(groups) == ["capped", "0", "2", "6+"]
    assert [group.num_targets for group in groups.values()] == [2] * 4
    assert [group.found for group in groups.values()] == [1, 0, 1, 0]
    assert [group.found_by_baseline for group in groups.values()] == [1, 0, 0, 1]


def test_targets_that_are_not_looked_for_are_left_out() -> None:
    cell = CountedTargets(ROWS, {10: 1}, frozenset(), frozenset())
    assert [group.name for group in group_by_positives([cell])] == ["2"]


def test_last_layer() -> None:
    rows = [row(1, 0, 0, 0, layer=layer) for layer in (1, 0, 1)]
    assert last_layer(rows) == [rows[0], rows[2]]
    assert last_layer([]) == []
