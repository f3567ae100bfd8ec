"""Pages of reports: templates find the shared one, text is escaped, pictures stand inside."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import pytest
from jinja2 import UndefinedError
from PIL import Image

from msdetr.drawing.report_page import file_url, jpeg_url, load_template, shared_look

PAGE = """{% extends "report_page.html.j2" %}
{% block title %}{{ title }}{% endblock %}
{% block content %}
<h1>{{ title }}</h1><p>{{ value | percent }}</p>
{% endblock %}
"""


@pytest.fixture
def template(tmp_path: Path) -> Path:
    file = tmp_path / "page.html.j2"
    file.write_text(PAGE)
    return file


def decode(url: str, kind: str) -> bytes:
    before, _, content = url.partition(",")
    assert before == f"data:{kind};base64"
    return base64.b64decode(content)


def test_template_beside_its_module_extends_the_shared_page(template: Path) -> None:
    html = load_template(template).render(title="<b>", value=0.4567)
    assert html.startswith("<!DOCTYPE html>")
    assert "<title>&lt;b&gt;</title>" in html
    assert "<p>45.7</p>" in html
    assert "@media print" in html
    assert shared_look().strip() in html


def test_what_is_not_given_is_an_error_and_none_is_a_dash(template: Path) -> None:
    assert "<p>–</p>" in load_template(template).render(title="", value=None)  # noqa: RUF001
    with pytest.raises(UndefinedError, match="value"):
        load_template(template).render(title="")


def test_large_pictures_are_reduced_and_small_ones_are_not() -> None:
    large, small = Image.new("RGBA", (800, 400)), Image.new("RGB", (30, 20))
    for picture, size in ((large, (200, 100)), (small, (30, 20))):
        url = jpeg_url(picture, max_side_px=200, quality=80)
        assert Image.open(io.BytesIO(decode(url, "image/jpeg"))).size == size
    assert large.size == (800, 400)


def test_file_becomes_an_address_of_its_kind(tmp_path: Path) -> None:
    (tmp_path / "a.svg").write_text("<svg/>")
    assert decode(file_url(tmp_path / "a.svg"), "image/svg+xml") == b"<svg/>"
