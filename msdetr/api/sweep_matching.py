"""Re-matching of a trace with many settings: the workflow behind ``msdetr sweep-matching``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

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
_MOST_VALUES = 10_000
_MOST_SETTINGS = 20_000


@dataclass(frozen=True)
class SweepOptions:
    """Settings to try, each as text: a list "1,2,4" or a range "0.2:0.6:0.05", both ends included.

    Attributes:
        k: Most queries per target; None for the trace's own.
        threshold: Lowest score of a positive; None for the trace's own.
        alpha: IoU weight of the score; None for the trace's own.
        cap: Share of the queries that may be positive, or "none"; None for the trace's own.
    """

    k: str | None = None
    threshold: str | None = None
    alpha: str | None = None
    cap: str | None = None


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

    def table(self, most: int = 12) -> Table:
        """Some of the settings, evenly spread, and in bold the trace's own if it was tried."""
        total = [row for row in self.rows if row["layer"] == ALL_LAYERS]
        stride = max(1, math.ceil(len(total) / most))
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
    "iou_weight": ("alpha", False),
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
            str(trace), f"its assigner is {own.type}, which has no settings to sweep (ms_detr has)"
        )
    grid = parse_grid(options, own)
    rows = list(sweep_rows(sweep(loaded, grid)))
    with writing(output):
        write_sweep_csv(output / CSV_FILE, rows)
        files = [output / CSV_FILE]
        for name, figure in draw_sweep(rows, grid, own).items():
            save_figure(figure, output / f"{name}.png")
            files.append(output / f"{name}.png")
    return SweepReport(tuple(rows), own, tuple(files))


def parse_grid(options: SweepOptions, own: OneToManyAssigner) -> SweepGrid:
    """Read the settings to try.

    Args:
        options: As texts.
        own: Setting of the trace, for what is not given.

    Raises:
        UsageError: A text is not a list or range of valid numbers, or they are too many.
    """
    ks = _numbers("--k", options.k, own.k, low=1, high=10**6)
    if any(k != int(k) for k in ks):
        raise UsageError("--k", f"expected whole numbers, got {options.k!r}")
    cap = own.max_positive_fraction
    if options.cap is not None:
        cap = None if options.cap.lower() == "none" else _cap(options.cap)
    grid = SweepGrid(
        ks=tuple(int(k) for k in ks),
        thresholds=_numbers("--threshold", options.threshold, own.threshold),
        iou_weights=_numbers("--alpha", options.alpha, own.iou_weight),
        max_positive_fraction=cap,
    )
    count = len(grid.ks) * len(grid.thresholds) * len(grid.iou_weights)
    if count > _MOST_SETTINGS:
        raise UsageError("--k", f"{count} settings in all; at most {_MOST_SETTINGS} can be swept")
    return grid


def _cap(text: str) -> float:
    numbers = _numbers("--cap", text, 1.0)
    if len(numbers) != 1 or numbers[0] == 0:
        raise UsageError("--cap", f"expected one number above 0 and up to 1, or none, got {text!r}")
    return numbers[0]


def _numbers(
    option: str, text: str | None, default: float, *, low: float = 0.0, high: float = 1.0
) -> tuple[float, ...]:
    if text is None:
        return (default,)
    try:
        values = [number for part in text.split(",") for number in _expand(part)]
    except ValueError as error:
        raise UsageError(
            option, f"expected a list like 1,2,4 or a range start:end:step, got {text!r}"
        ) from error
    outside = [value for value in values if not low <= value <= high]
    if outside:
        most = "" if high > 1 else f" to {high:g}"
        raise UsageError(option, f"expected numbers from {low:g}{most}, got {outside[0]:g}")
    return tuple(dict.fromkeys(values))


def _expand(part: str) -> Sequence[float]:
    """Numbers of "a" or "a:b:step"."""
    numbers = [float(piece) for piece in part.split(":")]
    if not all(map(math.isfinite, numbers)) or len(numbers) == 2 or len(numbers) > 3:
        raise ValueError(part)
    if len(numbers) == 1:
        return numbers
    start, end, step = numbers
    count = (end - start) / step if step > 0 else -1.0
    if count < 0 or count > _MOST_VALUES:
        raise ValueError(part)
    # Decimal steps add up with rounding errors; settings are compared with others' decimals.
    return [round(start + i * step, 12) for i in range(math.floor(count + 1e-9) + 1)]


def _text(value: str | float | None, *, share: bool) -> str:
    if value is None:
        return "-"
    if share:
        return f"{100 * float(value):.1f}%"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
