"""What a field expects, in words."""

from __future__ import annotations

import pytest

from msdetr.recipe import Recipe
from msdetr.recipe.expectation import SchemaView, shown

SCHEMA = {
    "properties": {
        "count": {"type": "integer", "minimum": 1},
        "share": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
        "side": {"type": "integer", "minimum": 32, "multipleOf": 32},
        "kind": {"enum": ["a", "b"]},
        "root": {"anyOf": [{"type": "string", "format": "path"}, {"type": "null"}]},
        "pair": {"prefixItems": [{"type": "number"}, {"type": "number"}]},
        "some": {"items": {"type": "integer"}, "minItems": 2},
        "part": {"$ref": "#/$defs/Part"},
    },
    "$defs": {"Part": {"type": "object", "properties": {"inner": {"type": "boolean"}}}},
}


@pytest.mark.parametrize(
    ("path", "words"),
    [
        (["count"], "an integer >= 1"),
        (["share"], "a number in (0, 1]"),
        (["side"], "an integer >= 32, a multiple of 32"),
        (["kind"], "one of a, b"),
        (["root"], "a path or null"),
        (["pair"], "a list of 2, each a number"),
        (["some"], "a list of at least 2, each an integer"),
        (["some", 5], "an integer"),
        (["pair", 1], "a number"),
        (["part"], "a mapping"),
        (["part", "inner"], "true or false"),
    ],
)
def test_expected(path: list[str | int], words: str) -> None:
    assert SchemaView(SCHEMA).expected(path) == words


@pytest.mark.parametrize(
    ("path", "part"),
    [
        (["cuont"], "did you mean 'count'"),
        (["inner"], "did you mean 'part.inner'"),
        (["part.inner"], "nested in its section 'part'"),
        (["part", "zzz"], "valid keys are inner"),
    ],
)
def test_unknown_key(path: list[str | int], part: str) -> None:
    assert part in SchemaView(SCHEMA).unknown_key(path)


def test_every_field_of_a_recipe_can_be_described() -> None:
    view = SchemaView(Recipe.model_json_schema())
    keys = view.keys()
    assert "train.lr" in keys
    assert all(view.expected(key.split(".")) for key in keys)


def test_values_are_shown_in_the_words_of_yaml() -> None:
    assert [shown(v) for v in (None, True, {"a": 1}, (1, 2))] == [
        "null",
        "true",
        "a mapping",
        "[1, 2]",
    ]
    assert shown("x" * 100).endswith("...")
    assert len(shown("x" * 100)) == 60
