"""What all figures share: a palette that color-blind readers can tell apart, and saving."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from msdetr.drawing.palette import COLORS
from msdetr.files import replacing_file

# Dark ones first: thin lines on white need contrast; yellow would not have it.
PALETTE = tuple("#{:02X}{:02X}{:02X}".format(*COLORS[i]) for i in (4, 5, 2, 6, 1, 0))
"""Blue, vermilion, green, purple, sky, orange."""

GREY = "#767676"

# No dates: the same numbers give the same bytes.
_METADATA: dict[str, dict[str, Any]] = {".svg": {"Date": None}, ".png": {"Software": None}}
_DPI = 130


def color_of(index: int) -> str:
    """Return the color of a series by its number; after six the palette repeats, darker."""
    base = PALETTE[index % len(PALETTE)]
    shade = 0.5 ** (index // len(PALETTE))
    parts = (round(int(base[at : at + 2], 16) * shade) for at in (1, 3, 5))
    return "#" + "".join(f"{part:02X}" for part in parts)


# Margins are given: matplotlib's own layout takes longer than everything else.
_LEFT, _RIGHT, _TOP, _BOTTOM, _LEGEND_ROW = 0.85, 0.2, 0.4, 0.6, 0.22
_GAP_X, _GAP_Y = 0.85, 0.95


def new_figure(
    num_panels: int,
    *,
    num_columns: int = 3,
    panel_size: tuple[float, float] = (4.4, 2.8),
    legend_rows: int = 0,
) -> tuple[Figure, list[Axes]]:
    """Start a figure of equal panels, with room for labels and a legend.

    Args:
        num_panels: Panels.
        num_columns: Maximum number of panels side by side.
        panel_size: Width and height of one panel without its labels, in inches.
        legend_rows: Rows of the legend below the panels.

    Returns:
        The figure and its panels, row by row.
    """
    columns = min(num_panels, num_columns)
    rows = math.ceil(num_panels / columns)
    bottom = _BOTTOM + _LEGEND_ROW * legend_rows
    width = _LEFT + _RIGHT + columns * (panel_size[0] + _GAP_X) - _GAP_X
    height = _TOP + bottom + rows * (panel_size[1] + _GAP_Y) - _GAP_Y
    with _style():
        figure = Figure(figsize=(width, height))
        for index in range(num_panels):
            row, column = divmod(index, columns)
            x = _LEFT + column * (panel_size[0] + _GAP_X)
            y = bottom + (rows - 1 - row) * (panel_size[1] + _GAP_Y)
            place = (x / width, y / height, panel_size[0] / width, panel_size[1] / height)
            figure.add_axes(place).spines[["top", "right"]].set_visible(False)
    return figure, figure.axes


def add_legend(figure: Figure, entries: Sequence[Artist], *, num_columns: int) -> None:
    """Put one legend below all panels, in the room that ``new_figure`` left for it.

    Args:
        figure: Where.
        entries: Lines or patches with labels; none for no legend.
        num_columns: Maximum number of entries side by side.
    """
    if entries:
        figure.legend(
            handles=entries,
            loc="lower center",
            ncols=min(len(entries), num_columns),
            frameon=False,
            fontsize=9,
            borderaxespad=0.2,
        )


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure in the format of the path's suffix, replacing an older one as a whole.

    Args:
        figure: What to write.
        path: Ends in ``.png`` or ``.svg``.
    """
    kind = path.suffix
    for text in figure.findobj(Text):
        # Names of runs and classes are shown, never read as TeX.
        text.set_parse_math(False)
    with replacing_file(path) as aside, _style():
        figure.savefig(
            aside, format=kind[1:], dpi=_DPI, metadata=_METADATA[kind], facecolor="white"
        )


def _style() -> AbstractContextManager[None]:
    # Text stays text in SVG files; the salt makes their ids the same every time.
    return mpl.rc_context(
        {
            "font.size": 10,
            "axes.titlesize": 11,
            "svg.hashsalt": "msdetr",
            "svg.fonttype": "none",
        }
    )
