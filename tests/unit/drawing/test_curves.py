"""Curves: legible, inside the figure, told apart without colours."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from matplotlib.colors import to_rgb

from msdetr.drawing.curves import Curve, Panel, Points, draw_curves
from msdetr.drawing.figures import PALETTE, save_figure
from msdetr.drawing.palette import WHITE, contrast


def panel(title: str, count: int) -> Panel:
    points = Points([1.0, 2.0, 3.0], [0.3, math.nan, 0.1])
    curves = [Curve(label=f"run {i}", points=points, series=i) for i in range(count)]
    return Panel(title=title, y_label="loss", curves=curves)


@pytest.mark.parametrize(("panels", "runs"), [(1, 1), (2, 3), (3, 9), (4, 2)])
def test_nothing_overlaps_or_leaves_the_figure(panels: int, runs: int, tmp_path: Path) -> None:
    figure = draw_curves([panel(f"panel {i}", runs) for i in range(panels)], "epoch")
    save_figure(figure, tmp_path / "curves.png")
    boxes = [axes.get_tightbbox() for axes in figure.axes]
    boxes += [legend.get_window_extent() for legend in figure.legends]
    assert len(boxes) == panels + 1
    for i, first in enumerate(boxes):
        assert first is not None
        assert min(first.x0, first.y0) >= 0
        assert first.x1 <= figure.bbox.x1
        assert first.y1 <= figure.bbox.y1
        for second in boxes[:i]:
            assert second is not None
            assert not first.overlaps(second)


def test_series_differ_in_colour_and_marker() -> None:
    figure = draw_curves([panel("a", 6)], "epoch")
    lines = figure.axes[0].lines
    assert len({line.get_color() for line in lines}) == 6
    assert len({line.get_marker() for line in lines}) == 6


def test_panel_without_values_says_so() -> None:
    empty = Panel(title="a", y_label="loss", curves=[Curve(label="x", points=Points([], []))])
    figure = draw_curves([empty], "epoch")
    assert [text.get_text() for text in figure.axes[0].texts] == ["no values"]


def test_colours_show_on_white() -> None:
    for color in PALETTE:
        red, green, blue = (round(255 * part) for part in to_rgb(color))
        assert contrast((red, green, blue), WHITE) > 2


def test_the_highest_point_keeps_off_the_edge() -> None:
    curve = Curve(label="x", points=Points([1.0, 2.0], [2.4, 1.6]))
    axes = draw_curves([Panel(title="a", y_label="loss", curves=[curve])], "epoch").axes[0]
    assert axes.get_ylim()[0] == 0
    assert axes.get_ylim()[1] >= 1.05 * 2.4


@pytest.mark.parametrize(
    ("x", "y", "left", "bottom"),
    [([0.1, 4.0], [0.01, 1.0], 0, 0.0), ([40.5, 44.0], [50.0, 52.0], 40, 49.9)],
)
def test_axes_start_where_the_data_start(
    x: list[float], y: list[float], left: float, bottom: float
) -> None:
    curve = Curve(label="x", points=Points(x, y))
    drawn = Panel(title="a", y_label="AP (%)", curves=[curve], starts_at_zero=False)
    axes = draw_curves([drawn], "epochs").axes[0]
    assert axes.get_xlim()[0] == left
    assert axes.get_ylim()[0] == pytest.approx(bottom)


@pytest.mark.parametrize(("runs", "lines"), [(3, 6), (4, 4)])
def test_many_lines_are_drawn_without_their_finer_values(runs: int, lines: int) -> None:
    points = Points([1.0, 2.0], [0.3, 0.1])
    curves = [Curve(label=f"{i}", points=points, detail=points, series=i) for i in range(runs)]
    figure = draw_curves([Panel(title="a", y_label="loss", curves=curves)], "epoch")
    assert len(figure.axes[0].lines) == lines
