"""Recipes as YAML: complete, and read back equal."""

from __future__ import annotations

import json

import pytest

from msdetr.recipe import Recipe, load_recipe, recipe_to_commented_yaml, recipe_to_dict
from msdetr.recipe.dump import recipe_to_yaml, value_to_yaml
from msdetr.recipe.yaml_source import read_text


@pytest.mark.parametrize(
    "text",
    ["no", "1e-4", "1", "~", "a: b", "# x", "two\nlines", "\u2028", "a\n\u2028b", " led", "\u00e9"],
)
def test_text_that_yaml_would_misread_comes_back(text: str) -> None:
    entry, problems = read_text(recipe_to_yaml(Recipe(description=text)), "here")
    assert entry is not None
    assert problems == []
    assert entry.plain()["description"] == text  # type: ignore[call-overload, index]


def test_dictionary_is_json_and_complete() -> None:
    values = recipe_to_dict(load_recipe("shapes_tiny"))
    assert json.loads(json.dumps(values)) == values
    assert Recipe.model_fields.keys() == values.keys()


def test_comment_says_origin_and_leaves_the_recipe_readable() -> None:
    text = recipe_to_commented_yaml(Recipe(description="first\nsecond"), "mine.yaml")
    assert text.startswith("# first\n# second\n# Every field of mine.yaml, resolved.\n")
    assert text.endswith(recipe_to_yaml(Recipe(description="first\nsecond")))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "true"),
        (2e-4, "0.0002"),
        ("fp32", "fp32"),
        ("no", "'no'"),
        ([480, 512], "[480, 512]"),
        ({"k": 6, "loss": {"giou_weight": 2.0}}, "{k: 6, loss: {giou_weight: 2.0}}"),
        ("x " * 200, f"{'x ' * 200}".join("''")),
    ],
    ids=lambda value: str(value)[:12],
)
def test_a_value_is_one_line_of_yaml(value: object, text: str) -> None:
    assert value_to_yaml(value) == text
