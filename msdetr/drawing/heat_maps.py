"""Heat maps of a value over two settings, side by side for a third."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from msdetr.drawing.figures import color_of, new_figure

# Even in lightness, and the same for readers who do not tell red from green.
_COLOR_MAP = "cividis"
_MOST_COLUMNS = 4
# Placing text takes long, and the numbers are in a table anyway.
_MOST_LABELLED_CELLS = 150


@dataclass(frozen=True, kw_only=True)
class HeatMap:
    """One map.

    Attributes:
        title: Above the map.
        values: Rows of values, the first at the bottom; NaN where there is none.
        marked: Row and column of a cell to frame, or None.
    """

    title: str
    values: Sequence[Sequence[float]]
    marked: tuple[int, int] | None = None


@dataclass(frozen=True, kw_only=True)
class HeatMapAxes:
    """What the axes of the maps are.

    Attributes:
        x_label: Name of the columns.
        x: Value of every column.
        y_label: Name of the rows.
        y: Value of every row.
    """

    x_label: str
    x: Sequence[float]
    y_label: str
    y: Sequence[float]


def draw_heat_maps(
    maps: Sequence[HeatMap], axes: HeatMapAxes, *, title: str, footer: str, percent: bool = False
) -> Figure:
    """Draw maps with one color scale.

    Args:
        maps: From left to right, four in a row.
        axes: The same for all maps.
        title: What the values are.
        footer: A sentence below everything.
        percent: Values are shares, to be written as per cent.
    """
    columns = min(len(maps), _MOST_COLUMNS)
    rows = math.ceil(len(maps) / columns)
    size = (0.9 + 0.36 * max(len(axes.x), 7), 1.0 + 0.3 * max(len(axes.y), 5))
    figure, plots = new_figure(rows, columns, panel_size=size)
    known = [v for entry in maps for row in entry.values for v in row if math.isfinite(v)]
    scale = Normalize(min(known, default=0.0), max(known, default=1.0))
    for entry, plot in zip(maps, plots, strict=False):
        _draw_map(plot, entry, axes, scale)
        if len(maps) * len(axes.x) * len(axes.y) <= _MOST_LABELLED_CELLS:
            _write_values(plot, entry.values, scale, percent=percent)
    for plot in plots[len(maps) :]:
        plot.set_visible(False)
    bar = figure.colorbar(
        ScalarMappable(scale, _COLOR_MAP), ax=plots[: len(maps)], aspect=12 * rows, pad=0.02
    )
    bar.ax.yaxis.set_major_formatter(lambda value, _: _text(value, percent=percent))
    figure.suptitle(title, fontsize=12)
    figure.supxlabel(footer, fontsize=9, color="#404040")
    return figure


def _draw_map(plot: Axes, entry: HeatMap, axes: HeatMapAxes, scale: Normalize) -> None:
    values = [list(row) for row in entry.values]
    plot.imshow(values, cmap=_COLOR_MAP, norm=scale, origin="lower", aspect="auto")
    plot.set_facecolor("#D8D8D8")
    plot.set_title(entry.title)
    plot.set_xlabel(axes.x_label)
    plot.set_ylabel(axes.y_label)
    plot.set_xticks(range(len(axes.x)), [f"{x:g}" for x in axes.x], fontsize=8)
    plot.set_yticks(range(len(axes.y)), [f"{y:g}" for y in axes.y], fontsize=8)
    if entry.marked is not None:
        row, column = entry.marked
        frame = Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, lw=2.5, ec=color_of(1))
        frame.set_clip_on(False)
        frame.set_zorder(3)
        plot.add_patch(frame)


def _write_values(
    plot: Axes, values: Sequence[Sequence[float]], scale: Normalize, *, percent: bool
) -> None:
    for row, line in enumerate(values):
        for column, value in enumerate(line):
            if math.isfinite(value):
                color = "white" if scale(value) < 0.5 else "black"
                text = _text(value, percent=percent)
                plot.text(column, row, text, ha="center", va="center", fontsize=7, color=color)


def _text(value: float, *, percent: bool) -> str:
    if percent:
        return f"{100 * value:.3g}%"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
