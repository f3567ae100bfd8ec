"""Stability: what changed since the epoch before and since the layer before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from msdetr.errors import TraceError
from msdetr.inspection.stability import jaccard, stability_rows
from msdetr.inspection.trace import MatchTrace


def with_queries(trace: MatchTrace, one_to_one: Callable[[Any], Any]) -> MatchTrace:
    """The trace with other one-to-one queries."""
    images = tuple(
        replace(image, one_to_one_queries=one_to_one(image.one_to_one_queries))
        for image in trace.images
    )
    return MatchTrace(trace.info, images)


def first_target_gets_query_39(queries: torch.Tensor) -> torch.Tensor:
    return torch.where(torch.arange(queries.shape[1]) == 0, 39, queries)


def test_same_trace_twice_is_stable(scene: Callable[..., Any]) -> None:
    trace = scene().trace
    rows = list(stability_rows([(1, trace), (2, trace)]))
    assert [(row.epoch, row.layer, row.targets) for row in rows] == [
        (1, 0, 9),
        (1, 1, 9),
        (2, 0, 9),
        (2, 1, 9),
    ]
    for row in rows[:2]:
        assert row.one_to_one_changed is None
        assert row.one_to_many_jaccard is None
    for row in rows[2:]:
        assert row.one_to_one_changed == 0
        assert row.one_to_one_box_iou == pytest.approx(1)
        assert row.one_to_many_jaccard == 1


def test_changes_are_counted_by_target_and_layer(scene: Callable[..., Any]) -> None:
    trace = scene().trace
    changed = with_queries(trace, first_target_gets_query_39)
    before = torch.cat([image.one_to_one_queries for image in trace.images], dim=1)
    after = torch.cat([image.one_to_one_queries for image in changed.images], dim=1)
    _, _, first, second = stability_rows([(4, trace), (5, changed)])
    for layer, row in enumerate((first, second)):
        expected = float((before[layer] != after[layer]).double().mean())
        assert row.one_to_one_changed == pytest.approx(expected)
        assert expected > 0
        assert row.one_to_one_box_iou is not None
        assert row.one_to_one_box_iou < 1
    assert first.one_to_one_changed_from_layer_before is None
    assert second.one_to_one_changed_from_layer_before == pytest.approx(
        float((after[1] != after[0]).double().mean())
    )


def test_gap_between_epochs_is_not_compared(scene: Callable[..., Any]) -> None:
    trace = scene().trace
    rows = list(stability_rows([(1, trace), (3, trace)]))
    assert all(row.one_to_one_changed is None for row in rows)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ([1, 2, 3], [3, 2, 1], [1.0]),
        ([1, 2, -1], [2, 3, -1], [1 / 3]),
        ([1, -1, -1], [-1, -1, -1], [0.0]),
        ([-1, -1, -1], [-1, -1, -1], []),
    ],
)
def test_jaccard(first: list[int], second: list[int], expected: list[float]) -> None:
    value = jaccard(torch.tensor([first]), torch.tensor([second]))
    assert value.tolist() == pytest.approx(expected)


@pytest.mark.parametrize("other", [{"counts": (3, 0, 5)}, {"num_layers": 3}, {"num_queries": 44}])
def test_traces_that_do_not_fit_are_refused(other: Any, scene: Callable[..., Any]) -> None:
    with pytest.raises(TraceError, match="than nothing"):
        list(stability_rows([(1, scene().trace), (2, scene(**other).trace)]))
