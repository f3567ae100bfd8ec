"""``cells.csv``: one row per cell, for spreadsheets and statistics of one's own."""

from __future__ import annotations

import io
from collections.abc import Sequence

from msdetr.csv_files import CsvWriter, escape_formula
from msdetr.study.cell_findings import FAMILIES
from msdetr.study.seed_means import names_of
from msdetr.study.study_findings import CellRow


def render_cells(cells: Sequence[CellRow]) -> str:
    """Return the table; numbers have nine significant digits, undefined ones are empty."""
    columns = [
        (family, name)
        for family in FAMILIES
        for name in names_of(cell.measures.get(family, {}) for cell in cells)
    ]
    buffer = io.StringIO()
    writer = CsvWriter(buffer)
    writer.write(["arm", "seed", "state", "error", "machine", *map(_title, columns)])
    for cell in cells:
        numbers = [cell.measures.get(family, {}).get(name) for family, name in columns]
        texts = (cell.arm, str(cell.seed), cell.state, cell.error, cell.machine or "")
        writer.write([*map(_safe, texts), *map(_number, numbers)])
    return buffer.getvalue()


def _title(column: tuple[str, str]) -> str:
    family, name = column
    return name if family in {"metrics", "costs"} else f"{family}/{name}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.9g}"


def _safe(text: str) -> str:
    return escape_formula(" ".join(text.split()))
