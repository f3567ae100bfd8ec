"""The page of a comparison: names are escaped, numbers in points, everybody can read it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from msdetr.study.comparison_page import ComparedImage, render_comparison

EVIL = "<script>alert(1)</script>"


def swept(name: str, *values: float | None) -> SimpleNamespace:
    rows = [SimpleNamespace(threshold=t, ap=ap) for t, ap in zip((None, 0.7), values, strict=True)]
    targets = SimpleNamespace(num_targets=9)
    return SimpleNamespace(name=name, nms_sweep=SimpleNamespace(rows=rows), targets=targets)


@pytest.fixture
def html() -> str:
    interval = SimpleNamespace(low=-0.01, high=0.0304)
    comparison: Any = SimpleNamespace(
        first=swept(EVIL, 0.5, 0.6),
        second=swept("second", 0.45, None),
        caveat="Two checkpoints only.",
        differences=[SimpleNamespace(metric="ap", difference=0.02, interval=interval)],
        num_won=3,
        num_lost=1,
    )
    picture = ComparedImage("a.png", Image.new("RGB", (1800, 900)), 3, 1)
    return render_comparison(comparison, [picture], "The first ones.")


def test_names_are_escaped_and_numbers_are_points(html: str) -> None:
    assert "<script" not in html
    assert "<td>+2.0</td><td>-1.0 to +3.0</td>" in html
    assert "<td>none</td><td>50.0</td><td>45.0</td><td>+5.0</td>" in html
    assert "<td>0.7</td>" not in html  # one of the two has no AP there
    assert "a.png: 3 won, 1 lost" in html


@pytest.mark.parametrize("width", [400, 1400])
def test_page_is_accessible(width: int, html: str, find_violations: Any) -> None:
    assert find_violations(html, width) == []
