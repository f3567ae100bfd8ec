"""Text in CSV files stays text in spreadsheets, whoever writes them."""

from __future__ import annotations

import ast
import csv
import io
from pathlib import Path

import pytest

from msdetr.csv_files import CsvWriter, escape_formula

ROOT = Path(__file__).resolve().parents[2]


def written(*rows: list[object]) -> list[list[str]]:
    file = io.StringIO()
    CsvWriter(file).write_all(rows)
    return list(csv.reader(io.StringIO(file.getvalue(), newline="")))


@pytest.mark.parametrize(
    "text",
    [
        '=HYPERLINK("http://a","b")',
        "=1+1",
        "@SUM(A1)",
        "+cmd|' /C calc'!A0",
        "-2+3",
        "- minus",
        "\t=1",
        "\n=1",
        "＝1+1",  # noqa: RUF001
        "+",
        "-1 ",
    ],
)
def test_formulas_get_an_apostrophe(text: str) -> None:
    assert written(["a", text])[0] == ["a", f"'{text}"]
    assert escape_formula(f"'{text}") == f"'{text}"


@pytest.mark.parametrize("text", ["\r=1", "a\r=1", "a\r\n=1", "a\r-1,=2"])
def test_carriage_returns_begin_no_row(text: str) -> None:
    file = io.StringIO()
    CsvWriter(file).write([text, "x"])
    assert "\r" not in file.getvalue()
    ((first, second),) = csv.reader(io.StringIO(file.getvalue(), newline=""))
    assert second == "x"
    assert not first.startswith(("=", "\r", "\n"))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        *(("-0.25", "-0.25"), ("+3", "+3"), ("-1e-05", "-1e-05"), ("-inf", "-inf")),
        *((-0.25, "-0.25"), (-3, "-3"), (None, ""), (True, "True"), ("", "")),
        *(("a=b", "a=b"), ("ball-point", "ball-point"), (" -x", " -x"), ("'a", "'a")),
    ],
)
def test_everything_else_stays(value: object, expected: str) -> None:
    assert written([value, "x"])[0] == [expected, "x"]


def test_mappings_have_a_first_row_of_names() -> None:
    file = io.StringIO()
    CsvWriter(file).write_mappings([{"=a": 1, "b": "-x"}, {"b": "y", "=a": -2}])
    assert file.getvalue() == "'=a,b\n1,'-x\n-2,y\n"


def test_no_rows() -> None:
    file = io.StringIO()
    CsvWriter(file).write_mappings([])
    assert file.getvalue() == ""


def csv_writers(source: str) -> list[str]:
    """Uses of Python's own writers."""
    names = {"writer", "DictWriter"}
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            found += [node.attr] if node.value.id == "csv" and node.attr in names else []
        if isinstance(node, ast.ImportFrom) and node.module == "csv":
            found += [alias.name for alias in node.names if alias.name in names]
    return found


def test_nobody_else_writes_csv() -> None:
    sources = [path for part in ("msdetr", "cli") for path in (ROOT / part).rglob("*.py")]
    assert len(sources) > 200
    users = {path.name for path in sources if csv_writers(path.read_text(encoding="utf-8"))}
    assert users == {"csv_files.py"}


def test_another_writer_would_be_found() -> None:
    assert csv_writers("import csv\ncsv.DictWriter(file, [])") == ["DictWriter"]
    assert csv_writers("from csv import writer") == ["writer"]
    assert csv_writers("import csv\ncsv.reader(file)") == []
