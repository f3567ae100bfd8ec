"""``cells.csv``: exact numbers, and no text that a spreadsheet would execute."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest

from msdetr.study.study_findings import CellRow
from msdetr.study.telling.cells_csv import render_cells


def cell(**fields: Any) -> CellRow:
    values: dict[str, Any] = {
        "arm": "mixed",
        "seed": 42,
        "state": "finished",
        "error": "",
        "is_analysed": True,
        "machine": None,
        "measures": {},
    }
    return CellRow(**{**values, **fields})


def read(*cells: CellRow) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(render_cells(cells))))


def test_columns_and_numbers() -> None:
    measures = {"metrics": {"ap": 1 / 3, "ap50": None}, "nms": {"0.5": 0.5}}
    rows = read(cell(measures=measures), cell(seed=43, state="missing"))
    assert list(rows[0])[:5] == ["arm", "seed", "state", "error", "machine"]
    assert (rows[0]["ap"], rows[0]["ap50"], rows[0]["nms/0.5"]) == ("0.333333333", "", "0.5")
    assert (rows[1]["ap"], rows[1]["state"]) == ("", "missing")


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x"])
def test_formulas_are_text(text: str) -> None:
    for given in (text, f"\t{text}", f"\r{text}"):
        assert read(cell(error=given))[0]["error"] == f"'{text}"


def test_commas_quotes_and_lines_stay_in_their_field() -> None:
    assert read(cell(error='a, "b"\r\nc'))[0]["error"] == 'a, "b" c'
