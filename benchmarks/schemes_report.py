"""Tables and picture of what ``schemes.py`` has measured."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from schemes_subjects import BASELINE

from msdetr.drawing.figures import PALETTE, add_legend, new_figure

Row = Sequence[str]
NUM_DECODER_LAYERS = 6
PART_TITLES = {"step": "whole step", "decoder": "decoder and losses"}
_BAR_WIDTH = 0.38


@dataclass
class SchemeResult:
    """What was measured of a scheme's training step.

    Attributes:
        queries: Of all groups.
        flops: Of matrix products and convolutions.
        seconds: Times of the rounds.
        memory_mib: Peak.
    """

    queries: int
    flops: int
    seconds: list[float] = field(default_factory=list)
    memory_mib: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON values."""
        return asdict(self)


Results = dict[str, SchemeResult]


@dataclass(frozen=True)
class Ratios:
    """A scheme's costs relative to the baseline's.

    Attributes:
        time: Median over rounds.
        products: Floating-point operations.
        memory: Peak.
    """

    time: float
    products: float
    memory: float

    @classmethod
    def of(cls, part: Mapping[str, Any], scheme: str) -> Ratios:
        """Compare a scheme with the baseline of the same part."""
        own, base = part[scheme], part[BASELINE]
        pairs = zip(own["seconds"], base["seconds"], strict=True)
        return cls(
            time=statistics.median(mine / other for mine, other in pairs),
            products=own["flops"] / base["flops"],
            memory=own["memory_mib"] / base["memory_mib"],
        )


def scheme_table(results: Mapping[str, Any]) -> list[Row]:
    """Lay out time, products and memory of whole steps and of decoder and losses.

    Args:
        results: As ``schemes.py`` writes them.

    Returns:
        Header and rows; empty if neither part was measured.
    """
    parts = {key: results[key] for key in PART_TITLES if key in results}
    if not parts:
        return []
    header = ["scheme", "queries"]
    for key in parts:
        title = PART_TITLES[key]
        header += [f"{title}: time", "products", "time / products", "memory"]
    some = next(iter(parts.values()))
    rows: list[Row] = [header]
    for scheme in some:
        row = [scheme, str(some[scheme]["queries"])]
        for part in parts.values():
            row += _baseline_cells(part) if scheme == BASELINE else _ratio_cells(part, scheme)
        rows.append(row)
    return rows


def _baseline_cells(part: Mapping[str, Any]) -> Row:
    base = part[BASELINE]
    seconds = statistics.median(base["seconds"])
    return [
        f"{seconds:.2f} s",
        f"{base['flops'] / 1e9:.0f} GFLOP",
        "",
        f"{base['memory_mib']:.0f} MiB",
    ]


def _ratio_cells(part: Mapping[str, Any], scheme: str) -> Row:
    ratios = Ratios.of(part, scheme)
    return [
        f"{ratios.time:.2f}x",
        f"{ratios.products:.2f}x",
        f"{ratios.time / ratios.products:.2f}",
        f"{ratios.memory:.2f}x",
    ]


def attention_table(results: Mapping[str, Any]) -> list[Row]:
    """Lay out the times of one layer's self-attention.

    Args:
        results: As ``schemes.py`` writes them.

    Returns:
        Header and rows; empty if attention was not measured.
    """
    if "attention" not in results:
        return []
    rows: list[Row] = [
        [
            "scheme",
            "queries",
            "block by block",
            "mask of all pairs",
            "kernels alone",
            "blocks beyond kernels, share of a whole step",
        ]
    ]
    for scheme, found in results["attention"].items():
        blocks, masked, kernels = (
            statistics.median(found[key]) for key in ("blocks", "masked", "kernels")
        )
        share = ""
        if "step" in results:
            step = statistics.median(results["step"][scheme]["seconds"])
            share = f"{NUM_DECODER_LAYERS * (blocks - kernels) / step:.1%}"
        times = (f"{1e3 * seconds:.1f} ms" for seconds in (blocks, masked, kernels))
        rows.append([scheme, str(found["queries"]), *times, share])
    return rows


def print_markdown(table: Sequence[Row]) -> None:
    """Print a table as Markdown, numbers at the right."""
    header, *rows = table
    rule = ["---", *["---:"] * (len(header) - 1)]
    for row in (header, rule, *rows):
        print(f"| {' | '.join(row)} |")
    print()


def print_text(table: Sequence[Row]) -> None:
    """Print a table in columns, numbers at the right."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for first, *others in table:
        cells = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        print("  ".join([first.ljust(widths[0]), *cells]))
    print()


def draw_schemes(results: Mapping[str, Any]) -> Figure:
    """Draw time and memory of all schemes relative to the baseline, a panel per part.

    Args:
        results: As ``schemes.py`` writes them, with one part of a training step at least.
    """
    parts = {key: results[key] for key in PART_TITLES if key in results}
    figure, panels = new_figure(len(parts), num_columns=1, panel_size=(9.5, 2.6), legend_rows=2)
    for plot, (key, part) in zip(panels, parts.items(), strict=True):
        _draw_bars(plot, PART_TITLES[key], part)
    entries = [
        Patch(color=PALETTE[0], label="time"),
        Patch(color=PALETTE[4], label="peak memory"),
        Line2D([], [], color="black", lw=1.5, label="matrix products"),
    ]
    add_legend(figure, entries, num_columns=len(entries))
    return figure


def _draw_bars(plot: Axes, title: str, part: Mapping[str, Any]) -> None:
    schemes = [scheme for scheme in part if scheme != BASELINE]
    ratios = [Ratios.of(part, scheme) for scheme in schemes]
    places = range(len(schemes))
    for shift, color, ink, values in (
        (-_BAR_WIDTH / 2, PALETTE[0], "white", [each.time for each in ratios]),
        (_BAR_WIDTH / 2, PALETTE[4], "black", [each.memory for each in ratios]),
    ):
        bars = plot.bar([place + shift for place in places], values, _BAR_WIDTH, color=color)
        # In the middle of the bars, where the mark of the products seldom is.
        plot.bar_label(bars, fmt="%.2f", fontsize=7, label_type="center", color=ink)
    for place, each in zip(places, ratios, strict=True):
        plot.hlines(each.products, place - _BAR_WIDTH, place, color="black", lw=1.5)
    plot.axhline(1, color="black", lw=0.6, ls=":")
    names = [scheme.replace(" + ", "\n+ ") for scheme in schemes]
    plot.set_xticks(list(places), names, fontsize=8)
    plot.set_ylabel("relative to the baseline")
    plot.set_title(title[0].upper() + title[1:])
