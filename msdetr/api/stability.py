"""How much assignments change in a training run: the workflow behind ``msdetr stability``."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from msdetr.api.output import check_output, writing
from msdetr.api.traces.epoch_traces import TRACES
from msdetr.csv_files import CsvWriter
from msdetr.drawing.curves import Curve, Panel, Points, draw_curves
from msdetr.drawing.figures import save_figure
from msdetr.errors import UsageError
from msdetr.inspection.stability import StabilityRow, stability_rows
from msdetr.inspection.trace import MatchTrace

FILES = ("stability.csv", "stability.png", "stability.svg")
_FOLDER = re.compile(r"epoch_(\d+)")


@dataclass(frozen=True)
class StabilityReport:
    """Result of the comparison of all epochs.

    Attributes:
        rows: Of ``stability.csv``: one per epoch and layer.
        files: What was written.
    """

    rows: tuple[StabilityRow, ...]
    files: tuple[Path, ...]

    def table(self) -> Table:
        """Return the last decoder layer, epoch by epoch."""
        last = max(row.layer for row in self.rows)
        table = Table(title=f"decoder layer {last}, {self.rows[0].targets} targets")
        for title in ("epoch", "1-to-1 changed", "box IoU", "1-to-many Jaccard", "layer before"):
            table.add_column(title, justify="right")
        for row in self.rows:
            if row.layer == last:
                values = (
                    row.one_to_one_changed,
                    row.one_to_one_box_iou,
                    row.one_to_many_jaccard,
                    row.one_to_one_changed_from_layer_before,
                )
                table.add_row(str(row.epoch), *("-" if v is None else f"{v:.3f}" for v in values))
        return table


def measure_stability(run: Path, *, output: Path | None = None) -> StabilityReport:
    """Compare the match traces of a run's epochs.

    Args:
        run: Run directory with ``traces/epoch_NNN``.
        output: Directory for the files, which must not hold them yet; by default
            ``stability`` in the run, where older ones are replaced.

    Raises:
        InvalidInputError: The run has no traces, they are damaged or not comparable, or the
            output cannot be used.
    """
    if output is not None:
        check_output(output, FILES)
    rows = tuple(stability_rows(_load(find_traces(run))))
    folder = output or run / "stability"
    with writing(folder) as aside:
        _write_csv(aside / FILES[0], rows)
        figure = draw_curves(_panels(rows), "epoch", num_columns=2)
        for name in FILES[1:]:
            save_figure(figure, aside / name)
    return StabilityReport(rows, tuple(folder / name for name in FILES))


def find_traces(run: Path) -> list[tuple[int, Path]]:
    """Find the traces of a run: finished epochs and directory of each, ascending.

    Raises:
        UsageError: There is no such run, or it has no traces.
    """
    if not run.is_dir():
        raise UsageError(str(run), "is no run directory")
    matches = ((_FOLDER.fullmatch(path.name), path) for path in (run / TRACES).glob("epoch_*"))
    found = sorted((int(match[1]), path) for match, path in matches if match)
    if not found:
        raise UsageError(
            str(run),
            f"has no {TRACES}/epoch_NNN; train with "
            "`overrides=['inspection.trace_every_epoch=true']`",
        )
    return found


def _load(places: Sequence[tuple[int, Path]]) -> Iterator[tuple[int, MatchTrace]]:
    for epoch, path in places:
        yield epoch, MatchTrace.load(path)


def _write_csv(path: Path, rows: Sequence[StabilityRow]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        CsvWriter(file).write_mappings(
            {k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.to_dict().items()}
            for row in rows
        )


def _panels(rows: Sequence[StabilityRow]) -> list[Panel]:
    chosen: list[tuple[str, str, Callable[[StabilityRow], float | None]]] = [
        (
            "One-to-one query changed since the epoch before",
            "share of targets (%)",
            lambda row: _percent(row.one_to_one_changed),
        ),
        (
            "One-to-one box: IoU with the epoch before",
            "mean over targets",
            lambda row: row.one_to_one_box_iou,
        ),
        (
            "One-to-many queries: Jaccard with the epoch before",
            "mean over targets",
            lambda row: row.one_to_many_jaccard,
        ),
        (
            "One-to-one query differs from the layer before",
            "share of targets (%)",
            lambda row: _percent(row.one_to_one_changed_from_layer_before),
        ),
    ]
    return [
        Panel(title=title, y_label=label, curves=_curves(rows, value))
        for title, label, value in chosen
    ]


def _curves(
    rows: Sequence[StabilityRow], value: Callable[[StabilityRow], float | None]
) -> list[Curve]:
    curves = []
    for layer in sorted({row.layer for row in rows}):
        pairs = [(row.epoch, value(row)) for row in rows if row.layer == layer]
        known = [(x, math.nan if y is None else y) for x, y in pairs]
        points = Points([float(x) for x, _ in known], [y for _, y in known])
        curves.append(Curve(label=f"decoder layer {layer}", points=points, series=layer))
    return curves


def _percent(value: float | None) -> float | None:
    return None if value is None else 100 * value
