"""docs/flags.md names fields that exist, with their published values, and the options we read."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from msdetr.recipe import load_recipe, recipe_to_dict
from msdetr.recipe.fields import list_fields

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/flags.md").read_text(encoding="utf-8")
KEYS = sorted(set(re.findall(r"`((?:model|supervision|train|data)\.[a-z0-9_.]+\*?)`", PAGE)))


def test_every_field_exists() -> None:
    known = {field.key for field in list_fields()}
    assert len(KEYS) > 25
    unknown = [key for key in KEYS if key not in known and key.removesuffix(".*") not in known]
    assert unknown == []


@pytest.mark.parametrize("row", re.findall(r"^\| .* \| `([a-z_.]+)` \| ([\d.e-]+) \|$", PAGE, re.M))
def test_values_are_the_published_ones(row: tuple[str, str]) -> None:
    key, value = row
    tree = recipe_to_dict(load_recipe("ddetr_300q"))
    for name in key.split("."):
        tree = tree[name]
    assert tree == float(value)


def test_every_option_that_is_read_is_on_the_page() -> None:
    source = ROOT / "msdetr/api/checkpoints/official_recipes.py"
    (function,) = (
        node
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and node.name == "check_arguments"
    )
    keys = [node.keys for node in ast.walk(function) if isinstance(node, ast.Dict)]
    names = {key.value for found in keys for key in found if isinstance(key, ast.Constant)}
    names |= {
        node.slice.value
        for node in ast.walk(function)
        if isinstance(node, ast.Subscript)
        and isinstance(node.ctx, ast.Store)
        and isinstance(node.slice, ast.Constant)
    }
    assert names == set(re.findall(r"^\| `(\w+)` \| `", PAGE, re.M))
    assert len(names) == 7
