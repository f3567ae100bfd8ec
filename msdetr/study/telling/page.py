"""The report of a study: one HTML file that needs nothing beside itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from msdetr.drawing.report_page import file_url, load_template
from msdetr.study.telling.section import Section

_TEMPLATE = Path(__file__).with_name("study_report.html.j2")


@dataclass(frozen=True, kw_only=True)
class StudyPage:
    """Content of a report.

    Attributes:
        title: Heading.
        facts: What to know first, as name and value.
        notes: What to know before believing anything.
        sections: The rest.
        figures: Files of figures and pictures by name.
        alternatives: What figures show, for those who do not see them.
        captions: Of the pictures.
    """

    title: str
    facts: Sequence[tuple[str, str]]
    notes: Sequence[str]
    sections: Sequence[Section]
    figures: Mapping[str, Path]
    alternatives: Mapping[str, str]
    captions: Mapping[str, str]


def render_page(page: StudyPage) -> str:
    """Return the report as HTML; text of the study and its cells is escaped."""
    sources = {name: file_url(file) for name, file in page.figures.items()}
    return load_template(_TEMPLATE).render(page=page, sources=sources)
