"""CSV files whose text stays text in a spreadsheet."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from typing import TextIO

_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # noqa: RUF001 - full width


class CsvWriter:
    """Writes rows, lines ending in a line feed.

    Text that a spreadsheet would take for a formula gets an apostrophe in front; numbers, formatted
    or not, are written as they are.

    Source: OWASP, "CSV Injection".

    Args:
        file: Open for writing text without newline translation.
    """

    def __init__(self, file: TextIO) -> None:
        self._writer = csv.writer(file, lineterminator="\n")

    def write(self, values: Iterable[object]) -> None:
        """Append a row."""
        self._writer.writerow([_as_cell(value) for value in values])

    def write_all(self, rows: Iterable[Iterable[object]]) -> None:
        """Append rows."""
        for row in rows:
            self.write(row)

    def write_mappings(self, rows: Iterable[Mapping[str, object]]) -> None:
        """Append rows by the names of their columns, with a first row of these.

        Args:
            rows: All with the keys of the first.
        """
        names: list[str] | None = None
        for row in rows:
            if names is None:
                names = list(row)
                self.write(names)
            self.write(row[name] for name in names)


def escape_formula(text: str) -> str:
    """Put an apostrophe before text that a spreadsheet would take for a formula."""
    return f"'{text}" if text.startswith(_STARTS) else text


def _as_cell(value: object) -> object:
    if not isinstance(value, str) or _is_number(value):
        return value
    # Python's writer does not quote carriage returns, which spreadsheets take for the next row.
    return escape_formula(value).replace("\r\n", "\n").replace("\r", "\n")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return text == text.strip()
