"""The report of a study in Markdown, for repositories and issues."""

from __future__ import annotations

import re
from collections.abc import Iterator

from msdetr.study.telling.page import StudyPage
from msdetr.study.telling.section import Section, Table

# What Markdown and the HTML inside it would read as more than text.
_SPECIAL = re.compile(r"([\\`*_\[\]<>|#~&])")


def render_markdown(page: StudyPage, folder: str) -> str:
    """Return the report as Markdown; text of the study and its cells is escaped.

    Args:
        page: What to say.
        folder: Where the files of the figures are, relative to that of the report.
    """
    return "\n".join(_lines(page, folder)) + "\n"


def _lines(page: StudyPage, folder: str) -> Iterator[str]:
    yield f"# {_escape(page.title)}"
    yield from _table(Table(("", ""), tuple(page.facts)))
    for note in page.notes:
        yield from ("", f"> {_escape(note)}")
    for section in page.sections:
        yield from ("", f"## {_escape(section.title)}")
        yield from _section(section, page, folder)


def _section(section: Section, page: StudyPage, folder: str) -> Iterator[str]:
    if section.sentences:
        yield ""
        yield from (f"- **{_escape(sentence)}**" for sentence in section.sentences)
    for name in section.figures:
        if name in page.figures:
            yield from _image(page.alternatives[name], f"{folder}/{page.figures[name].name}")
    for table in section.tables:
        if table.title:
            yield from ("", f"{_escape(table.title)}:")
        yield from _table(table)
    for name in section.pictures:
        caption = page.captions[name]
        yield from _image(caption, f"{folder}/{page.figures[name].name}")
        yield from ("", _escape(caption))
    for note in section.notes:
        yield from ("", _escape(note))


def _image(alternative: str, target: str) -> Iterator[str]:
    yield from ("", f"![{_escape(alternative)}]({target})")


def _table(table: Table) -> Iterator[str]:
    yield ""
    yield _row(table.header)
    yield "|" + "|".join(["---", *["---:"] * (len(table.header) - 1)]) + "|"
    yield from map(_row, table.rows)


def _row(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(map(_escape, cells)) + " |"


def _escape(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))
