"""Ranks, marks and lists of queries."""

from __future__ import annotations

import torch

from msdetr.assignment.ranking import list_queries, mark_pairs, mark_queries, ranks_of, top_queries
from msdetr.structures import Assignment


def test_ties_go_to_the_lowest_query() -> None:
    scores = torch.tensor([0.5, 0.7, 0.5, -torch.inf])
    assert ranks_of(scores).tolist() == [2, 1, 3, 4]
    assert top_queries(scores.view(1, 1, 1, 4), 3).flatten().tolist() == [1, 0, 2]


def test_marks_and_lists_are_inverse() -> None:
    queries = torch.tensor([[[2, 0, -1], [-1, -1, -1]]])
    marked = mark_queries(queries, 4)
    assert marked.int().tolist() == [[[1, 0, 1, 0], [0, 0, 0, 0]]]
    ranks = torch.tensor([2, 4, 1, 3]).expand(1, 2, 4)
    assert list_queries(marked, ranks).tolist() == [[[2, 0], [-1, -1]]]


def test_list_of_no_target_has_a_slot() -> None:
    nothing = torch.zeros(3, 0, 5)
    assert list_queries(nothing.bool(), nothing.long()).shape == (3, 0, 1)


def test_only_valid_rows_are_pairs() -> None:
    index = torch.tensor([0, 1, 0])
    rows = Assignment(
        layer=index,
        image=torch.zeros(3, dtype=torch.int64),
        query=torch.tensor([1, 0, 2]),
        target=torch.tensor([0, 1, 1]),
        score=torch.zeros(3),
        valid=torch.tensor([True, True, False]),
    )
    assert mark_pairs(rows, (2, 1, 2, 3)).nonzero().tolist() == [[0, 0, 0, 1], [1, 0, 1, 0]]
