"""The parts of a report, before they are HTML or Markdown."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """Text in rows and columns; the first column names the row.

    Attributes:
        header: Of every column.
        rows: As long as the header.
        title: Above it; may be empty.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    title: str = ""

    def __post_init__(self) -> None:
        """Check the lengths."""
        assert all(len(row) == len(self.header) for row in self.rows)


@dataclass(frozen=True)
class Section:
    """One heading with what stands below it.

    Attributes:
        title: The heading.
        sentences: What matters, one entry each; a list where there are several.
        figures: Names of figures.
        tables: Below the figures.
        pictures: Names of pictures below the tables, each with a caption.
        notes: How to read them.
    """

    title: str
    sentences: tuple[str, ...] = ()
    figures: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    pictures: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
