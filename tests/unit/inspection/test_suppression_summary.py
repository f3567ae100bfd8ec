"""Counts of what a suppressor did, lost targets by name, and the table."""

from __future__ import annotations

import csv
import io
from dataclasses import replace

import pytest

from msdetr.inspection.suppression import Suppression
from msdetr.inspection.suppression_summary import SuppressionTable, summarize_suppressions

KEPT = Suppression(
    target=0,
    query=3,
    is_pick=True,
    iou=0.9,
    before=0.8,
    after=0.7,
    learned=0.5,
    own=0.0,
    by=-1,
    weight=0.0,
    by_iou=0.0,
    by_target=-1,
)
DUPLICATE = replace(
    KEPT, query=4, is_pick=False, after=0.1, by=3, weight=0.6, by_target=0, own=0.6, learned=0.25
)
LOST = replace(KEPT, target=1, query=5, after=0.0, by=4, weight=0.5, by_target=0)


def test_outcomes_targets_and_means() -> None:
    summary = summarize_suppressions([(7, (KEPT, DUPLICATE, LOST)), (8, (KEPT,)), (9, ())])
    assert summary.num_queries == 4
    assert summary.outcomes == {
        "kept": 2,
        "duplicate": 1,
        "neighbour": 1,
        "background": 0,
        "alone": 0,
    }
    assert summary.targets_kept == {"none": 1, "one": 2, "more": 0}
    assert summary.picks_kept == pytest.approx(2 / 3)
    assert summary.own == pytest.approx(0.15)
    assert summary.learned == pytest.approx((0.5 * 3 + 0.25) / 4)


def test_lost_targets_are_named_the_most_probable_first() -> None:
    other = replace(LOST, before=0.95, by_target=-1)
    summary = summarize_suppressions([(7, (KEPT, LOST)), (8, (other,))])
    assert [(each.image_id, each.target, each.outcome) for each in summary.lost] == [
        (8, 1, "background"),
        (7, 1, "neighbour"),
    ]
    assert summary.num_lost == 2


def test_nothing_at_all() -> None:
    summary = summarize_suppressions([(7, ())])
    assert (summary.num_queries, summary.picks_kept, summary.lost) == (0, None, ())


def test_table_has_a_row_per_query() -> None:
    file = io.StringIO()
    table = SuppressionTable(file, ["cat", "dog"])
    table.write(7, [1, 0], (KEPT, LOST))
    first, second = csv.DictReader(io.StringIO(file.getvalue()))
    assert (first["image"], first["category"], first["outcome"]) == ("7", "dog", "kept")
    assert (second["category"], second["by"], second["weight"]) == ("cat", "4", "0.5000")
