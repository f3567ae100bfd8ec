from __future__ import annotations

import torch

from msdetr.model.axes import Axes

SHAPES = ((2, 3), (1, 2))
VALID_WIDTH_HEIGHT = torch.tensor([[[3.0, 1.0], [2.0, 1.0]], [[2.0, 2.0], [1.0, 1.0]]])


def test_rows_of_all_levels_come_before_their_columns() -> None:
    axes = Axes.of(SHAPES, VALID_WIDTH_HEIGHT)
    assert axes.centres.tolist() == [0.5, 1.5, 0.5, 0.5, 1.5, 2.5, 0.5, 1.5]
    assert axes.valid.tolist() == [[1, 1, 1, 3, 3, 3, 2, 2], [2, 2, 1, 2, 2, 2, 1, 1]]


def test_cells_get_the_values_of_their_row_and_column() -> None:
    axes = Axes.of(SHAPES, VALID_WIDTH_HEIGHT)
    (rows, columns), (coarse_rows, coarse_columns) = axes.spread(torch.arange(8.0)[None])
    assert rows.tolist() == [[[0, 0, 0], [1, 1, 1]]]
    assert columns.tolist() == [[[3, 4, 5], [3, 4, 5]]]
    assert coarse_rows.tolist() == [[[2, 2]]]
    assert coarse_columns.tolist() == [[[6, 7]]]


def test_values_may_have_features() -> None:
    axes = Axes.of(SHAPES, VALID_WIDTH_HEIGHT)
    (rows, columns), _ = axes.spread(torch.rand(2, 8, 5))
    assert rows.shape == columns.shape == (2, 2, 3, 5)
