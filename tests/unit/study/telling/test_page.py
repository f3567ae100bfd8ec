"""The page of a study: text is escaped, figures have words beside them, everybody can read it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from msdetr.study.telling.page import StudyPage, render_page
from msdetr.study.telling.section import Section, Table

EVIL = "<script>alert(1)</script>"


@pytest.fixture
def html(tmp_path: Path) -> str:
    figure = tmp_path / "forest.svg"
    figure.write_text("<svg/>")
    table = Table(title="AP", header=("arm", "mean"), rows=((EVIL, "0.5 (0.1)"),))
    section = Section(
        title="Verdicts",
        sentences=("mixed is better than one_to_one.",),
        figures=("forest", "missing"),
        tables=(table, table),
        pictures=("forest",),
        notes=("A note.",),
    )
    return render_page(
        StudyPage(
            title="study",
            facts=[("metric", "AP")],
            notes=["1 of 6 cells is missing."],
            sections=[section],
            figures={"forest": figure},
            alternatives={"forest": "differences with intervals"},
            captions={"forest": "targets won"},
        )
    )


def test_text_is_escaped_and_figures_have_alternatives(html: str) -> None:
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert 'alt="differences with intervals"' in html
    assert html.count("data:image/svg+xml") == 2  # the figure that is missing is left out


@pytest.mark.parametrize("width", [400, 1400])
def test_page_is_accessible(width: int, html: str, find_violations: Any) -> None:
    assert find_violations(html, width) == []
