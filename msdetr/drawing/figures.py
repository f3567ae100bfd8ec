"""What all figures share: a palette that colour-blind readers can tell apart, and saving."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from msdetr.drawing.palette import COLORS

# Dark ones first: thin lines on white need contrast; yellow would not have it.
PALETTE = tuple("#{:02X}{:02X}{:02X}".format(*COLORS[i]) for i in (4, 5, 2, 6, 1, 0))
"""Blue, vermilion, green, purple, sky, orange."""

GREY = "#767676"

# No dates: the same numbers give the same bytes.
_METADATA: dict[str, dict[str, Any]] = {".svg": {"Date": None}, ".png": {"Software": None}}
_DPI = 130


def color_of(index: int) -> str:
    """Color of the series with this number; the palette is repeated after six."""
    return PALETTE[index % len(PALETTE)]


def new_figure(
    num_rows: int, num_columns: int, *, panel_size: tuple[float, float] = (5.2, 3.6)
) -> tuple[Figure, list[Axes]]:
    """Start a figure of equal panels.

    Args:
        num_rows: Rows of panels.
        num_columns: Columns of panels.
        panel_size: Width and height of one panel in inches.

    Returns:
        The figure and its panels, row by row.
    """
    with _style():
        size = (panel_size[0] * num_columns, panel_size[1] * num_rows)
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        panels = figure.subplots(num_rows, num_columns, squeeze=False).ravel().tolist()
    for panel in panels:
        panel.spines[["top", "right"]].set_visible(False)
    return figure, panels


def add_legend(figure: Figure, entries: Sequence[Artist], *, num_columns: int) -> None:
    """Put one legend below all panels.

    Args:
        figure: Where.
        entries: Lines or patches with labels; none for no legend.
        num_columns: Entries side by side at most.
    """
    if entries:
        figure.legend(
            handles=entries,
            loc="outside lower center",
            ncols=min(len(entries), num_columns),
            frameon=False,
            fontsize=9,
        )


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure in the format of the path's suffix, replacing an older one as a whole.

    Args:
        figure: What to write.
        path: Ends in ``.png`` or ``.svg``.
    """
    aside = path.with_name(f".{path.name}.new{path.suffix}")
    with _style():
        figure.savefig(aside, dpi=_DPI, metadata=_METADATA[path.suffix], facecolor="white")
    aside.replace(path)


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
