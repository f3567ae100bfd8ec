"""The report in Markdown: everything is there, and text stays text."""

from __future__ import annotations

from pathlib import Path

from msdetr.study.telling.markdown import render_markdown
from msdetr.study.telling.page import StudyPage
from msdetr.study.telling.section import Section, Table


def page(**fields: object) -> StudyPage:
    values: dict[str, object] = {
        "title": "A study",
        "facts": [("metric", "AP")],
        "notes": ["1 of 2 cells is not finished."],
        "sections": [],
        "figures": {"nms": Path("somewhere/nms.svg"), "won": Path("somewhere/won.jpg")},
        "alternatives": {"nms": "AP by suppression", "errors": "Errors"},
        "captions": {"won": "2 targets won"},
    }
    return StudyPage(**{**values, **fields})  # type: ignore[arg-type]


def test_sections_tables_and_figures() -> None:
    table = Table(("arm", "AP"), (("mixed", "0.5"),), "Means")
    section = Section(
        "Duplicates", ("It is so.",), ("nms", "errors"), (table,), ("won",), ("A note.",)
    )
    text = render_markdown(page(sections=[section]), "figures")
    assert text.startswith("# A study\n")
    for line in (
        "> 1 of 2 cells is not finished.",
        "## Duplicates",
        "- **It is so.**",
        "![AP by suppression](figures/nms.svg)",
        "| arm | AP |\n|---|---:|\n| mixed | 0.5 |",
        "![2 targets won](figures/won.jpg)\n\n2 targets won\n",
        "A note.",
    ):
        assert line in text
    assert "errors" not in text


def test_text_stays_text() -> None:
    section = Section("x", ("a|b <script> *c* [d](e)\n## f",))
    text = render_markdown(page(title="one_to_one", sections=[section]), "figures")
    assert "# one\\_to\\_one\n" in text
    assert r"a\|b \<script\> \*c\* \[d\](e) \#\# f" in text
