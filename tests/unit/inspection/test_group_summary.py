"""Statistics of query groups over the images of a trace."""

from __future__ import annotations

import csv
import io

import pytest

from msdetr.inspection.group_summary import GroupTable, summarize_groups, summarize_noise
from msdetr.inspection.query_groups import TracedGroup, TracedGroups, TracedNoise

FIRST = TracedGroups(
    (TracedGroup("hybrid", 10, (4, 6), (4, 6), (1, 3)),),
    TracedNoise(((0.5, 0.5, 0.1, 0.1),) * 2, (0, 0), (True, False), (True, False), (0.8, 0.2)),
)
SECOND = TracedGroups((TracedGroup("hybrid", 20, (0, 2), (0, 2), (0, 1)),), None)


def test_means_per_image_and_shares_per_pair() -> None:
    first, second = summarize_groups([FIRST, SECOND])
    assert (first.name, first.layer, first.queries) == ("hybrid", 0, 15)
    assert (first.serving, first.background) == (2, 13)
    assert first.also_one_to_many == pytest.approx(1 / 4)
    assert second.also_one_to_many == pytest.approx(4 / 8)


def test_a_share_of_nothing_is_none() -> None:
    nothing = TracedGroups((TracedGroup("hybrid", 3, (0,), (0,), (0,)),))
    no_rule = TracedGroups((TracedGroup("group_1", 3, (2,), (2,), None),))
    assert summarize_groups([nothing])[0].also_one_to_many is None
    assert summarize_groups([no_rule])[0].also_one_to_many is None
    assert summarize_groups([TracedGroups()]) == ()


def test_noise() -> None:
    noise = summarize_noise([FIRST, SECOND])
    assert noise is not None
    assert (noise.slots, noise.positive_iou, noise.negative_iou) == (2, 0.8, 0.2)
    assert noise.flipped == 0.5
    assert summarize_noise([SECOND]) is None


def test_table() -> None:
    file = io.StringIO()
    table = GroupTable(file)
    table.write(7, FIRST)
    rows = list(csv.DictReader(io.StringIO(file.getvalue())))
    assert [row["layer"] for row in rows] == ["0", "1"]
    assert rows[1] == {
        "image": "7",
        "group": "hybrid",
        "layer": "1",
        "queries": "10",
        "serving": "6",
        "background": "4",
        "pairs": "6",
        "also_one_to_many": "3",
    }
