"""Heat maps of a value over two settings, side by side for a third."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from msdetr.drawing.figures import color_of

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
    """Axes of the maps.

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
        percent: Values are fractions, to be written as percentages.
    """
    known = [v for entry in maps for row in entry.values for v in row if math.isfinite(v)]
    low, high = min(known, default=0.0), max(known, default=1.0)
    scale = Normalize(low, high if high > low else low + 1)
    grid = _Grid.of(len(maps), axes)
    figure = grid.new_figure()
    for index, entry in enumerate(maps):
        plot = figure.add_axes(grid.place(index))
        _draw_map(plot, entry, scale)
        _label_axes(plot, axes, left=index % grid.columns == 0, bottom=grid.is_lowest(index))
        if len(maps) * len(axes.x) * len(axes.y) <= _MOST_LABELLED_CELLS:
            _write_values(plot, entry.values, scale, percent=percent)
    bar = figure.colorbar(ScalarMappable(scale, _COLOR_MAP), cax=figure.add_axes(grid.bar()))
    bar.ax.yaxis.set_major_formatter(lambda value, _: _text(value, percent=percent))
    figure.text(0.5, 1 - 0.3 / grid.height, title, ha="center", va="center", fontsize=12)
    lines = textwrap.fill(footer, round(grid.width / 0.085))
    figure.text(0.5, 0.25 / grid.height, lines, ha="center", va="center", fontsize=9)
    return figure


@dataclass(frozen=True)
class _Grid:
    """Positions of maps, in inches; matplotlib's own layout takes far longer than the drawing."""

    count: int
    columns: int
    rows: int
    map_size: tuple[float, float]

    _MARGINS = (0.8, 1.1, 0.85, 0.95)  # left, right, top, bottom
    _GAPS = (0.25, 0.4)

    @classmethod
    def of(cls, count: int, axes: HeatMapAxes) -> _Grid:
        columns = min(count, _MOST_COLUMNS)
        size = (0.38 * max(len(axes.x), 8), 0.3 * max(len(axes.y), 6))
        return cls(count, columns, math.ceil(count / columns), size)

    @property
    def width(self) -> float:
        left, right, _, _ = self._MARGINS
        return left + right + self.columns * (self.map_size[0] + self._GAPS[0])

    @property
    def height(self) -> float:
        _, _, top, bottom = self._MARGINS
        return top + bottom + self.rows * (self.map_size[1] + self._GAPS[1]) - self._GAPS[1]

    def new_figure(self) -> Figure:
        return Figure(figsize=(self.width, self.height))

    def is_lowest(self, index: int) -> bool:
        return index + self.columns >= self.count

    def place(self, index: int) -> tuple[float, float, float, float]:
        row, column = divmod(index, self.columns)
        left = self._MARGINS[0] + column * (self.map_size[0] + self._GAPS[0])
        bottom = self._MARGINS[3] + (self.rows - 1 - row) * (self.map_size[1] + self._GAPS[1])
        return self._relative(left, bottom, *self.map_size)

    def bar(self) -> tuple[float, float, float, float]:
        return self._relative(
            self.width - self._MARGINS[1],
            self._MARGINS[3],
            0.18,
            self.height - self._MARGINS[2] - self._MARGINS[3],
        )

    def _relative(
        self, left: float, bottom: float, width: float, height: float
    ) -> tuple[float, float, float, float]:
        return (left / self.width, bottom / self.height, width / self.width, height / self.height)


def _label_axes(plot: Axes, axes: HeatMapAxes, *, left: bool, bottom: bool) -> None:
    x_texts = [f"{x:g}" if bottom else "" for x in axes.x]
    y_texts = [f"{y:g}" if left else "" for y in axes.y]
    plot.set_xticks(range(len(x_texts)), x_texts, fontsize=8)
    plot.set_yticks(range(len(y_texts)), y_texts, fontsize=8)
    if bottom:
        plot.set_xlabel(axes.x_label)
    if left:
        plot.set_ylabel(axes.y_label)


def _draw_map(plot: Axes, entry: HeatMap, scale: Normalize) -> None:
    values = [list(row) for row in entry.values]
    plot.imshow(values, cmap=_COLOR_MAP, norm=scale, origin="lower", aspect="auto")
    plot.set_facecolor("#D8D8D8")
    plot.set_title(entry.title)
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
        return f"{100 * value:.2g}%" if value < 0.0995 else f"{100 * value:.0f}%"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
