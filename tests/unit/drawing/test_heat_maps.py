"""Heat maps: where values, frames and labels are."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from msdetr.drawing.figures import save_figure
from msdetr.drawing.heat_maps import HeatMap, HeatMapAxes, draw_heat_maps

AXES = HeatMapAxes(x_label="threshold", x=(0.2, 0.4), y_label="k", y=(1, 2, 3))
VALUES = [[0.0, 0.5], [0.25, math.nan], [1.0, 0.75]]


def test_values_are_written_with_contrast_and_unit() -> None:
    figure = draw_heat_maps(
        [HeatMap(title="a", values=VALUES, marked=(1, 0))],
        AXES,
        title="shares",
        footer="footer",
        percent=True,
    )
    plot = figure.axes[0]
    written = {text.get_position(): text for text in plot.texts}
    assert {p: t.get_text() for p, t in written.items()} == {
        (0, 0): "0%",
        (1, 0): "50%",
        (0, 1): "25%",
        (0, 2): "100%",
        (1, 2): "75%",
    }
    assert written[0, 0].get_color() == "white"
    assert written[0, 2].get_color() == "black"
    (frame,) = plot.patches
    assert frame.get_xy() == (-0.5, 0.5)  # type: ignore[attr-defined]


def test_many_cells_are_not_labelled() -> None:
    values = np.random.default_rng(0).random((20, 20)).tolist()
    axes = HeatMapAxes(x_label="x", x=range(20), y_label="y", y=range(20))
    figure = draw_heat_maps([HeatMap(title="a", values=values)], axes, title="t", footer="f")
    assert list(figure.axes[0].texts) == []


@pytest.mark.parametrize("count", [1, 4, 6])
def test_maps_do_not_overlap_each_other_or_the_bar(count: int, tmp_path: Path) -> None:
    maps = [HeatMap(title=f"k = {i}", values=VALUES) for i in range(count)]
    figure = draw_heat_maps(maps, AXES, title="title", footer="footer " * 15)
    save_figure(figure, tmp_path / "map.png")
    boxes = [axes.get_tightbbox() for axes in figure.axes]
    boxes += [text.get_window_extent() for text in figure.texts]
    for i, first in enumerate(boxes):
        assert first is not None
        assert first.x0 >= 0
        assert first.y0 >= 0
        assert first.x1 <= figure.bbox.x1
        assert first.y1 <= figure.bbox.y1
        for second in boxes[:i]:
            assert second is not None
            assert not first.overlaps(second)
    assert Image.open(tmp_path / "map.png").width > 300


def test_constant_values_have_a_scale() -> None:
    values = [[0.0, 0.0]] * 3
    figure = draw_heat_maps([HeatMap(title="a", values=values)], AXES, title="t", footer="f")
    norm = figure.axes[0].images[0].norm
    assert (norm.vmin, norm.vmax) == (0.0, 1.0)
