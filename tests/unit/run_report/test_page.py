"""The report of a run: one file, with everything in it and all text escaped."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from msdetr.run_report.page import RunReport, SamplePictures, render_run_report

EVIL = "<script>alert(1)</script>"


def report(tmp_path: Path, **changes: Any) -> str:
    curve = tmp_path / "ap.svg"
    curve.write_text("<svg/>")
    picture = Image.new("RGB", (1600, 900))
    values: dict[str, Any] = {
        "name": "run",
        "description": "",
        "facts": [("queries", "60")],
        "curves": {"AP": curve},
        "evaluation": {
            "ap": 0.4321,
            "ap_small": None,
            "per_class": [
                {"name": EVIL, "num_ground_truth": 3, "ap": 0.5, "ap50": None},
            ],
        },
        "evaluation_note": "note",
        "samples": [SamplePictures(EVIL, picture, 7, picture, 5)],
        "samples_note": "",
        "recipe": f"description: {EVIL}",
        "environment": "",
    }
    return render_run_report(RunReport(**{**values, **changes}))


def test_everything_is_inside_and_escaped(tmp_path: Path) -> None:
    html = report(tmp_path)
    assert "<script" not in html
    assert html.count("&lt;script&gt;") == 5  # category, picture twice, its caption, recipe
    sources = re.findall(r'(?:src|href)="([^"]*)"', html)
    assert len(sources) == 3
    assert all(source.startswith("data:image/") for source in sources)
    assert "43.2" in html
    assert "<td>–</td>" in html  # noqa: RUF001 - a dash
    assert len(html) < 100_000


def test_warning_stands_with_the_numbers(tmp_path: Path) -> None:
    html = report(tmp_path, evaluation_warning=f"duplicates {EVIL}")
    (said,) = re.findall(r'<p class="warning">(.*?)</p>', html)
    assert said.startswith("duplicates &lt;script")
    assert '<p class="warning">' not in report(tmp_path)


def test_run_without_evaluation_has_no_such_sections(tmp_path: Path) -> None:
    html = report(tmp_path, evaluation=None, samples=[], curves={})
    assert "Nothing was logged" in html
    for title in ("Validation", "AP by category", "Samples"):
        assert f"<h2>{title}</h2>" not in html


@pytest.mark.parametrize("width", [400, 1400])
def test_page_is_accessible(width: int, find_violations: Any, tmp_path: Path) -> None:
    html = report(tmp_path, evaluation_warning="duplicates", environment="{}", description="small")
    assert find_violations(html, width) == []


def test_planted_violations_are_found(find_violations: Any, tmp_path: Path) -> None:
    html = report(tmp_path).replace(' alt="Curves of the training run: AP"', "")
    wide = html.replace("<p>", '<p style="width: 900px">', 1).replace(
        "<h2>Curves", '<p style="width: 900px">wide</p><h2>Curves'
    )
    found = find_violations(wide, 400)
    assert [each.partition(":")[0] for each in found] == ["image-alt", "scrolls sideways"]
