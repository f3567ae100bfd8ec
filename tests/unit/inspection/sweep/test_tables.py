"""Rows of a sweep, and the heat maps that show them."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from msdetr.drawing.figures import save_figure
from msdetr.inspection.sweep.figures import FIGURES, draw_sweep
from msdetr.inspection.sweep.statistics import SweepGrid, sweep
from msdetr.inspection.sweep.tables import Row, sweep_rows, write_sweep_csv

GRID = SweepGrid(
    ks=(1, 4), thresholds=(0.3, 0.4), iou_weights=(0.5, 0.7), max_positive_fraction=0.25
)


@pytest.fixture(scope="module")
def rows(scene: Callable[..., Any]) -> list[Row]:
    return list(sweep_rows(sweep(scene().trace, GRID)))


def test_row_of_all_layers_sums_up_those_of_the_layers(rows: list[Row]) -> None:
    assert len(rows) == 8 * 3
    for start in range(0, len(rows), 3):
        *layers, total = rows[start : start + 3]
        assert [row["layer"] for row in layers] == [0, 1]
        assert total["layer"] == "all"
        for name in ("images", "targets", "positives", "conflicts", "pairs_lost_to_cap"):
            assert total[name] == sum(row[name] for row in layers)  # type: ignore[misc]
        assert total["positives_per_target"] == pytest.approx(
            total["positives"] / total["targets"]  # type: ignore[operator]
        )


def test_mean_of_no_positives_is_empty(scene: Callable[..., Any], tmp_path: Path) -> None:
    grid = replace(GRID, max_positive_fraction=0.01)  # a cap of no query at all
    rows = list(sweep_rows(sweep(scene().trace, grid)))
    write_sweep_csv(tmp_path / "sweep.csv", rows)
    with (tmp_path / "sweep.csv").open() as file:
        read = list(csv.DictReader(file))
    assert len(read) == len(rows)
    assert {row["positives"] for row in read} == {"0"}
    assert {row["mean_iou"] for row in read} == {""}
    assert {float(row["share_without_positives"]) for row in read} == {1.0}


def test_settings_are_read_back_as_written(rows: list[Row], tmp_path: Path) -> None:
    write_sweep_csv(tmp_path / "sweep.csv", rows)
    with (tmp_path / "sweep.csv").open() as file:
        read = list(csv.DictReader(file))
    for got, row in zip(read, rows, strict=True):
        for name in ("k", "threshold", "iou_weight", "class_weight"):
            assert float(got[name]) == row[name]


@pytest.mark.parametrize(
    ("changes", "titles"),
    [
        ({}, ["k = 1", "k = 4"]),
        ({"iou_weights": (0.7,)}, ["IoU weight = 0.7"]),
        ({"thresholds": (0.4,)}, ["threshold = 0.4"]),
    ],
)
def test_maps_show_the_values_of_the_rows(
    changes: dict[str, Any], titles: list[str], scene: Callable[..., Any], tmp_path: Path
) -> None:
    trace, grid = scene().trace, replace(GRID, **changes)
    rows = list(sweep_rows(sweep(trace, grid)))
    figures = draw_sweep(rows, grid, trace.info.one_to_many)
    assert set(figures) == set(FIGURES)
    maps = [axes for axes in figures["mean_iou"].axes if axes.get_title()]
    assert [axes.get_title() for axes in maps] == titles
    shown = sorted(float(v) for axes in maps for v in axes.images[0].get_array().ravel())
    assert shown == sorted(row["mean_iou"] for row in rows if row["layer"] == "all")  # type: ignore[type-var]
    # The trace's own setting (k 4, threshold 0.4, IoU weight 0.7) is framed once.
    assert sum(len(axes.patches) for axes in maps) == 1
    save_figure(figures["mean_iou"], tmp_path / "map.png")
    assert (tmp_path / "map.png").stat().st_size > 5000
