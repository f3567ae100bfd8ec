"""Line plots of values over a training run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from msdetr.drawing.figures import GREY, add_legend, color_of, new_figure

_MARKERS = "os^Dv<>P"
_MAX_DETAILED = 3


@dataclass(frozen=True)
class Points:
    """Values over positions; NaN leaves a gap.

    Attributes:
        x: Positions.
        y: As many values.
    """

    x: Sequence[float]
    y: Sequence[float]


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One line of a panel.

    Attributes:
        label: What the legend calls it.
        points: The line.
        series: Number of the run it belongs to; decides the color.
        dashed: Draw it dashed.
        detail: Finer values, drawn faintly behind the line; of few lines, as many hide each other.
    """

    label: str
    points: Points
    series: int = 0
    dashed: bool = False
    detail: Points | None = None


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One plot.

    Attributes:
        title: Above the plot.
        y_label: What the values are, with their unit.
        curves: Lines.
        starts_at_zero: The axis of the values begins at 0, else a little below the lowest one.
    """

    title: str
    y_label: str
    curves: Sequence[Curve]
    starts_at_zero: bool = True


def draw_curves(
    panels: Sequence[Panel],
    x_label: str,
    *,
    line_styles: Sequence[str] = (),
    num_columns: int = 3,
) -> Figure:
    """Draw plots with one legend below them.

    Args:
        panels: Plots, row by row.
        x_label: What the positions are.
        line_styles: What solid and what dashed lines mean; shown if both occur.
        num_columns: Maximum number of plots side by side.
    """
    entries, columns = _legend(panels, line_styles), 2 * min(len(panels), num_columns)
    figure, axes = new_figure(
        len(panels), num_columns=num_columns, legend_rows=math.ceil(len(entries) / columns)
    )
    for panel, plot in zip(panels, axes, strict=True):
        _draw_panel(plot, panel, x_label)
    add_legend(figure, entries, num_columns=columns)
    return figure


def _draw_panel(plot: Axes, panel: Panel, x_label: str) -> None:
    detailed = len(panel.curves) <= _MAX_DETAILED
    for curve in panel.curves:
        color, style = color_of(curve.series), "--" if curve.dashed else "-"
        if curve.detail is not None and detailed:
            plot.plot(curve.detail.x, curve.detail.y, color=color, alpha=0.3, lw=0.8, ls=style)
        # Without finer values behind it, a line of few points would hardly be seen.
        marker = _MARKERS[curve.series % len(_MARKERS)] if len(curve.points.x) <= 30 else ""
        plot.plot(
            curve.points.x, curve.points.y, color=color, lw=1.8, ls=style, marker=marker, ms=4
        )
    plot.set_title(panel.title)
    plot.set_xlabel(x_label)
    plot.set_ylabel(panel.y_label)
    plot.grid(color="#E4E4E4", lw=0.6)
    plot.set_axisbelow(True)
    plot.xaxis.set_major_locator(MaxNLocator(nbins=9, integer=True, min_n_ticks=1))
    _start_where_the_data_start(plot)
    if panel.starts_at_zero:
        highest = plot.dataLim.y1
        plot.set_ylim(0, 1.06 * highest if math.isfinite(highest) and highest > 0 else None)
    if not any(math.isfinite(y) for curve in panel.curves for y in _all_values(curve)):
        plot.text(0.5, 0.5, "no values", transform=plot.transAxes, ha="center", color=GREY)


def _start_where_the_data_start(plot: Axes) -> None:
    """Begin the axes at the whole position before the first one and a little below the values.

    Values that are not negative never get an axis that is; markers at the edge stay whole.
    """
    first, last = plot.dataLim.intervalx
    if not first < last:
        return
    plot.set_xlim(math.floor(first), last + 0.03 * (last - first))
    if plot.dataLim.y0 >= 0:
        plot.set_ylim(bottom=max(0.0, plot.get_ylim()[0]))
    for line in plot.lines:
        line.set_clip_on(False)


def _all_values(curve: Curve) -> list[float]:
    return [*curve.points.y, *(curve.detail.y if curve.detail is not None else ())]


def _legend(panels: Sequence[Panel], line_styles: Sequence[str]) -> list[Line2D]:
    named = {curve.label: curve for panel in panels for curve in panel.curves}
    entries = [
        Line2D(
            [],
            [],
            color=color_of(curve.series),
            ls="--" if curve.dashed else "-",
            marker=_MARKERS[curve.series % len(_MARKERS)],
            ms=4,
            lw=1.8,
            label=label,
        )
        for label, curve in named.items()
    ]
    if len({curve.dashed for curve in named.values()}) == 2:
        styles = zip(("-", "--"), line_styles, strict=False)
        entries += [Line2D([], [], color=GREY, lw=1.5, ls=ls, label=text) for ls, text in styles]
    return entries
