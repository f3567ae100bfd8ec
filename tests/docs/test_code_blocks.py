"""Python and YAML of the README and the pages: it runs, it imports what there is, it is valid."""

from __future__ import annotations

import ast
import re
import shutil
from pathlib import Path
from textwrap import dedent

import pytest

from msdetr.recipe import load_recipe
from msdetr.recipe.yaml_source import read_file
from msdetr.study.design import load_design

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "docs/examples"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
RUN = "<!-- run -->"


def blocks(page: Path, language: str, mark: str = "") -> list[str]:
    """Blocks of a language on a page, those after a mark if one is given."""
    found = re.findall(
        rf"{re.escape(mark)}\s*^ *```{language}\n(.*?)^ *```", page.read_text(), re.S | re.M
    )
    return [dedent(text) for text in found]


def own_imports(code: str) -> str:
    """The import statements of our own package in a block."""
    statements = ast.parse(code).body
    own = [s for s in statements if isinstance(s, ast.ImportFrom) and "msdetr" in (s.module or "")]
    return ast.unparse(ast.Module(body=list(own), type_ignores=[]))


PYTHON = [(page.name, text) for page in PAGES for text in blocks(page, "python")]
MARKED = [(page.name, text) for page in PAGES for text in blocks(page, "python", RUN)]
YAML = [(page.name, text) for page in PAGES for text in blocks(page, "yaml")]


@pytest.mark.parametrize(("page", "code"), [each for each in PYTHON if ">>>" not in each[1]])
def test_python_is_valid_and_imports_what_there_is(page: str, code: str) -> None:
    exec(compile(own_imports(code), page, "exec"), {})  # noqa: S102 - of our own pages


@pytest.mark.parametrize(("page", "code"), MARKED)
def test_marked_python_runs(page: str, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(EXAMPLES)
    exec(compile(code, page, "exec"), {})  # noqa: S102 - of our own pages


@pytest.mark.parametrize(("page", "text"), YAML)
def test_recipes_and_studies_are_valid(page: str, text: str, tmp_path: Path) -> None:
    shutil.copytree(EXAMPLES, tmp_path, dirs_exist_ok=True)
    file = tmp_path / "shown.yaml"
    file.write_text(text)
    if "extends:" in text:
        load_recipe(file)
    elif "arms:" in text:
        assert load_design(file).warnings == []
    else:
        assert read_file(file, page)[1] == []


def test_there_are_blocks_of_each_kind() -> None:
    assert len(PYTHON) > 10
    assert len(MARKED) >= 4
    assert sum("extends:" in text for _, text in YAML) >= 2
    assert sum("arms:" in text for _, text in YAML) >= 2
