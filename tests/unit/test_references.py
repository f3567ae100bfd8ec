"""docs/recipes.md and docs/commands.md are what `python docs/write_references.py` writes."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from msdetr.recipe.fields import list_fields

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture(scope="module")
def writer() -> ModuleType:
    spec = importlib.util.spec_from_file_location("write_references", DOCS / "write_references.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", ["recipes.md", "commands.md"])
def test_pages_are_up_to_date(page: str, writer: ModuleType) -> None:
    written = (DOCS / page).read_text(encoding="utf-8")
    assert written == writer.PAGES[page](), "run python docs/write_references.py"


def test_every_field_is_on_the_page(writer: ModuleType) -> None:
    blocks = writer.recipe_page().split("\n#")
    tables = {block.partition("# `")[2].partition("`")[0]: block for block in blocks}
    for field in list_fields():
        section, _, name = field.key.rpartition(".")
        if field.is_section:
            assert field.key in tables
        else:
            assert f"| `{name}` |" in tables[section], field.key


def test_a_value_names_the_files_that_set_it(writer: ModuleType) -> None:
    setters = writer.settings_by_field()["model.num_queries"]
    assert "_base/ddetr" in setters["300"]
    assert "ddetr_pp_900q" in setters["900"]
