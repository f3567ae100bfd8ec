"""Re-matching of a trace with many settings: the workflow behind ``msdetr sweep-matching``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from rich.table import Table

from msdetr.api.output import check_output, writing
from msdetr.assignment import OneToManyAssigner
from msdetr.drawing.figures import save_figure
from msdetr.errors import UsageError
from msdetr.inspection.scheme import StoredScheme
from msdetr.inspection.sweep.figures import CAVEAT, FIGURES, draw_sweep
from msdetr.inspection.sweep.statistics import SweepGrid, sweep
from msdetr.inspection.sweep.tables import ALL_LAYERS, Row, sweep_rows, write_sweep_csv
from msdetr.inspection.trace import MatchTrace

CSV_FILE = "sweep.csv"
_MAX_K = 10**6
_MAX_SETTINGS = 20_000

Number = TypeVar("Number", int, float)


@dataclass(frozen=True)
class SweepOptions:
    """Settings to try, in all combinations; None stands for the trace's own.

    Attributes:
        ks: Maximum numbers of queries per target.
        thresholds: Minimum scores of a positive, in 0..1.
        iou_weights: Weights of the IoU in the score, in 0..1; the class weighs 1 less it.
        max_positive_fraction: Share of the queries that may be positive, above 0 and up to 1;
            None for all of them, "own" for the trace's own.

    Raises:
        UsageError: A number is out of range.
    """

    ks: tuple[int, ...] | None = None
    thresholds: tuple[float, ...] | None = None
    iou_weights: tuple[float, ...] | None = None
    max_positive_fraction: float | Literal["own"] | None = "own"

    def __post_init__(self) -> None:
        """Check the ranges."""
        _check_range("`ks`", self.ks, low=1, high=_MAX_K)
        _check_range("`thresholds`", self.thresholds)
        _check_range("`iou_weights`", self.iou_weights)
        cap = self.max_positive_fraction
        if isinstance(cap, float | int) and not 0 < cap <= 1:
            raise UsageError(
                "`max_positive_fraction`",
                f"expected one number above 0 and up to 1, or none, got {cap:g}",
            )


@dataclass(frozen=True)
class SweepReport:
    """Result of a sweep.

    Attributes:
        rows: Of ``sweep.csv``.
        own: Setting of the trace.
        files: What was written.
    """

    rows: tuple[Row, ...]
    own: OneToManyAssigner
    files: tuple[Path, ...]

    def table(self, max_rows: int = 12) -> Table:
        """Return some settings, evenly spread, and in bold the trace's own if it was tried.

        Args:
            max_rows: The most rows, apart from the trace's own setting.
        """
        total = [row for row in self.rows if row["layer"] == ALL_LAYERS]
        stride = max(1, math.ceil(len(total) / max_rows))
        table = Table(title=f"{len(total)} settings, all layers", caption=_TABLE_CAPTION)
        for title, _ in _COLUMNS.values():
            table.add_column(title, justify="right")
        for index, row in enumerate(total):
            own = all(row[name] == getattr(self.own, name) for name in _SETTING)
            if own or index % stride == 0:
                style = "bold" if own else ""
                texts = [_text(row[key], share=share) for key, (_, share) in _COLUMNS.items()]
                table.add_row(*texts, style=style)
        return table


_TABLE_CAPTION = (
    "pos.: positives per target; none: targets without any; cap: images that hit the cap; "
    f"lost: pairs that the cap removes. {CAVEAT}"
)
_SETTING = ("k", "threshold", "iou_weight")
# Title and whether the value is a share, by column of the CSV file.
_COLUMNS = {
    "k": ("k", False),
    "threshold": ("thr.", False),
    "iou_weight": ("IoU w", False),
    "positives_per_target": ("pos.", False),
    "share_without_positives": ("none", True),
    "mean_iou": ("IoU", False),
    "mean_probability": ("prob.", False),
    "share_iou_below_0.5": ("IoU<.5", True),
    "share_images_capped": ("cap", True),
    "share_pairs_lost_to_cap": ("lost", True),
}


def sweep_matching(trace: Path, options: SweepOptions, *, output: Path) -> SweepReport:
    """Repeat the one-to-many assignment of a trace with many settings.

    Args:
        trace: Directory of a match trace.
        options: Settings.
        output: Directory for ``sweep.csv`` and heat maps; must not hold them yet.

    Raises:
        InvalidInputError: Trace, settings or output cannot be used as asked.
    """
    check_output(output, (CSV_FILE, *(f"{name}.png" for name in FIGURES)))
    loaded = MatchTrace.load(trace)
    own = loaded.info.one_to_many
    if isinstance(own, StoredScheme):
        raise UsageError(
            str(trace), f"its assigner is {own.name}, which has no settings to sweep (ms_detr has)"
        )
    grid = complete_grid(options, own)
    rows = list(sweep_rows(sweep(loaded, grid)))
    with writing(output) as aside:
        write_sweep_csv(aside / CSV_FILE, rows)
        files = [output / CSV_FILE]
        for name, figure in draw_sweep(rows, grid, own).items():
            save_figure(figure, aside / f"{name}.png")
            files.append(output / f"{name}.png")
    return SweepReport(tuple(rows), own, tuple(files))


def complete_grid(options: SweepOptions, own: OneToManyAssigner) -> SweepGrid:
    """Take what is not given from the trace's own setting.

    Args:
        options: What is given.
        own: Setting of the trace.

    Raises:
        UsageError: The combinations are too many.
    """
    cap = options.max_positive_fraction
    grid = SweepGrid(
        ks=_values(options.ks, own.k),
        thresholds=_values(options.thresholds, own.threshold),
        iou_weights=_values(options.iou_weights, own.iou_weight),
        max_positive_fraction=own.max_positive_fraction if cap == "own" else cap,
    )
    count = len(grid.ks) * len(grid.thresholds) * len(grid.iou_weights)
    if count > _MAX_SETTINGS:
        raise UsageError("`ks`", f"{count} settings in all; at most {_MAX_SETTINGS} can be swept")
    return grid


def _values(given: tuple[Number, ...] | None, own: Number) -> tuple[Number, ...]:
    return (own,) if given is None else tuple(dict.fromkeys(given))


def _check_range(
    parameter: str, given: Sequence[float] | None, *, low: float = 0.0, high: float = 1.0
) -> None:
    outside = [value for value in given or () if not low <= value <= high]
    if outside:
        limit = "" if high > 1 else f" to {high:g}"
        raise UsageError(parameter, f"expected numbers from {low:g}{limit}, got {outside[0]:g}")


def _text(value: str | float | None, *, share: bool) -> str:
    if value is None:
        return "-"
    if share:
        return f"{100 * float(value):.1f}%"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
