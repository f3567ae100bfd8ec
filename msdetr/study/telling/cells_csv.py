"""``cells.csv``: one row per cell, for spreadsheets and statistics of one's own."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from msdetr.study.cell_findings import FAMILIES
from msdetr.study.seed_means import names_of
from msdetr.study.study_findings import CellRow

# What spreadsheets take for the beginning of a formula.
_FORMULA = ("=", "+", "-", "@")


def render_cells(cells: Sequence[CellRow]) -> str:
    """Return the table; numbers have nine significant digits, undefined ones are empty."""
    columns = [
        (family, name)
        for family in FAMILIES
        for name in names_of(cell.measures.get(family, {}) for cell in cells)
    ]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["arm", "seed", "state", "error", "machine", *map(_title, columns)])
    for cell in cells:
        numbers = [cell.measures.get(family, {}).get(name) for family, name in columns]
        texts = (cell.arm, str(cell.seed), cell.state, cell.error, cell.machine or "")
        writer.writerow([*map(_safe, texts), *map(_number, numbers)])
    return buffer.getvalue()


def _title(column: tuple[str, str]) -> str:
    family, name = column
    return name if family in {"metrics", "costs"} else f"{family}/{name}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.9g}"


def _safe(text: str) -> str:
    text = " ".join(text.split())
    return f"'{text}" if text.startswith(_FORMULA) else text
