"""The report of a study: one HTML file that needs nothing beside itself."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from msdetr.study.telling.section import Section

_TEMPLATE = "study_report.html.j2"
_MIME_TYPES = {".svg": "image/svg+xml", ".jpg": "image/jpeg", ".png": "image/png"}


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
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(_TEMPLATE).render(
        page=page,
        sources={name: _data_url(file) for name, file in page.figures.items()},
    )


def _data_url(file: Path) -> str:
    encoded = base64.b64encode(file.read_bytes()).decode()
    return f"data:{_MIME_TYPES[file.suffix]};base64,{encoded}"
