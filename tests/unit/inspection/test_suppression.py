"""What a suppressor did to a query: read off its attention, boxes and probabilities."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from msdetr.inspection.suppression import Suppression, SuppressorView, find_suppressions

LEFT, RIGHT, NOWHERE = (0.25, 0.5, 0.2, 0.2), (0.75, 0.5, 0.2, 0.2), (0.5, 0.1, 0.1, 0.1)


def view() -> SuppressorView:
    """Queries 0 and 1 on the left target, 2 on the right one, 3 on nothing; two learned keys."""
    weights = torch.tensor(
        [
            [0, 0, 0, 0, 0.5, 0.5],  # the most confident one sees no query
            [0.75, 0, 0.125, 0, 0.125, 0],
            [0.25, 0, 0, 0.5, 0.25, 0],
            [1, 0, 0, 0, 0, 0],
        ]
    )
    return SuppressorView(
        weights=weights,
        boxes=torch.tensor([LEFT, LEFT, RIGHT, NOWHERE]),
        before=torch.tensor([[0.9, 0.8, 0.0, 0.0], [0.0, 0.0, 0.6, 0.1]]),
        after=torch.tensor([[0.9, 0.1, 0.0, 0.0], [0.0, 0.0, 0.2, 0.1]]),
        targets=torch.tensor([LEFT, RIGHT]),
        paired=torch.tensor([[1, 0, -1], [-1, -1, -1]]),
        picks=torch.tensor([0, 2]),
    )


def test_queries_of_targets_by_probability() -> None:
    first, second, third = find_suppressions(view())
    assert (first.target, first.query, first.is_pick, first.outcome) == (0, 0, True, "kept")
    assert (first.by, first.weight, first.by_target, first.learned) == (-1, 0.0, -1, 1.0)
    assert (second.target, second.query, second.is_pick) == (0, 1, False)
    assert (second.by, second.weight, second.by_target) == (0, 0.75, 0)
    assert (second.own, second.learned, second.by_iou) == (0.75, 0.125, pytest.approx(1))
    assert second.outcome == "duplicate"
    assert (third.target, third.query, third.by, third.by_target) == (1, 2, 3, -1)
    assert third.outcome == "background"
    assert third.iou == pytest.approx(1)


def test_a_query_of_another_target_is_a_neighbour() -> None:
    weights = view().weights.clone()
    weights[2] = torch.tensor([0.75, 0, 0, 0.125, 0.125, 0])
    *_, third = find_suppressions(replace(view(), weights=weights))
    assert (third.by, third.by_target, third.outcome) == (0, 0, "neighbour")


def test_nobody_to_blame() -> None:
    first, *_ = find_suppressions(replace(view(), after=torch.zeros(2, 4)))
    assert first.outcome == "alone"


def test_without_targets_there_is_nothing_to_tell() -> None:
    empty = replace(
        view(),
        before=torch.zeros(0, 4),
        after=torch.zeros(0, 4),
        targets=torch.zeros(0, 4),
        paired=torch.zeros(0, 3, dtype=torch.int64),
        picks=torch.zeros(0, dtype=torch.int64),
    )
    assert find_suppressions(empty) == ()


def test_survives_json() -> None:
    for each in find_suppressions(view()):
        assert Suppression.from_dict(each.to_dict()) == each
