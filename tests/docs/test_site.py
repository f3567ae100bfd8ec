"""The site: it builds strictly and offline, what points into it arrives, and pages can be read."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAPERS = r"DETR|DINO|Focal|Varifocal|TOOD|TIDE|Duplicate|CVPR 2019|NeurIPS|Residual"
BROKEN_PICTURES = "[...document.images].filter(one => !one.naturalWidth).map(one => one.src)"
# Rows of a table have the same colors, and so have members of a class: the first ones will do.
DARK = """() => {
  document.querySelectorAll("tr:nth-child(n + 7), .doc-children .doc-object:nth-child(n + 4)")
    .forEach((one) => one.remove());
  document.body.setAttribute("data-md-color-scheme", "slate");
}"""
SCROLLS_SIDEWAYS = "document.documentElement.scrollWidth > innerWidth"
LINK = re.compile(r"\]\((?!https?:)([^)\s]+)\)|<img [^>]*src=\"(?!data:|https?:)([^\"]+)\"")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site; strict, so that links, anchors and pages without a place fail."""
    pytest.importorskip("mkdocs", reason="the extra `docs` is not installed")
    target = tmp_path_factory.mktemp("site")
    build = (sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", str(target))
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return target


def test_every_page_is_there(site: Path) -> None:
    pages = {path.relative_to(DOCS).with_suffix(".html") for path in DOCS.rglob("*.md")}
    assert len(pages) > 15
    assert not [page for page in pages if not (site / page).is_file()]
    assert 'id="msdetr.api.detector.Detector"' in (site / "reference.html").read_text()


def test_pages_load_nothing_from_the_network(site: Path) -> None:
    loaded = re.compile(r"<(?:script|link|img|iframe|source)\b[^>]*\b(?:src|href)=\"([^\"]*)\"")
    for page in site.rglob("*.html"):
        assert not [url for url in loaded.findall(page.read_text()) if "//" in url], page
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(?:@import|url\()\s*['\"]?(?:https?:)?//", sheet.read_text()), sheet


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_from_outside_arrive(name: str, site: Path) -> None:
    for link in filter(None, (a or b for a, b in LINK.findall((ROOT / name).read_text()))):
        path, _, anchor = link.partition("#")
        assert (ROOT / path).exists(), link
        if anchor:
            page = site / Path(path).relative_to("docs").with_suffix(".html")
            assert f'id="{anchor}"' in page.read_text(), link


@pytest.fixture(scope="module")
def phone(chromium: Any) -> Iterator[Any]:
    """A tab of 400 px in light colors; pages do not move while they are looked at."""
    with chromium.new_context(
        viewport={"width": 400, "height": 900}, reduced_motion="reduce", offline=True
    ) as context:
        yield context.new_page()


@pytest.mark.parametrize("name", sorted(path.stem for path in DOCS.glob("*.md")))
def test_page_can_be_read(
    name: str, site: Path, phone: Any, find_violations: Callable[..., list[str]]
) -> None:
    phone.goto((site / f"{name}.html").as_uri())
    assert not phone.evaluate(SCROLLS_SIDEWAYS)
    assert phone.evaluate(BROKEN_PICTURES) == []
    assert find_violations(phone) == []
    phone.evaluate(DARK)
    assert find_violations(phone, rules=["color-contrast"]) == []


def test_readme_is_short_and_has_its_blocks() -> None:
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 180
    for name in ("train", "setup-dev", "test"):
        marker = lines.index(f"<!-- command: {name} -->")
        assert lines[marker + 1] == "```bash"


def test_paper_map_names_files_that_exist() -> None:
    named = re.findall(r"`((?:msdetr|tests|recipes|extensions)/[^`]+)`", paper_map())
    assert len(named) > 80
    assert not [name for name in named if not (ROOT / name).exists()]


def test_paper_map_has_every_source_of_the_method() -> None:
    text = paper_map()
    for file in sorted((ROOT / "msdetr").rglob("*.py")):
        for source in re.findall(r"Source: (.*?)(?:\n\s*\n|\"\"\"|$)", file.read_text(), re.S):
            if re.search(PAPERS, source):
                name = file.relative_to(ROOT).as_posix()
                rows = " ".join(row for row in text.splitlines() if f"`{name}`" in row).lower()
                places = re.findall(r"(?:equation|figure|table|algorithm)s? \d+", source)
                assert rows, f"{name}: {source}"
                assert not [place for place in places if place not in rows], (name, source)


def paper_map() -> str:
    return (DOCS / "paper_map.md").read_text()
