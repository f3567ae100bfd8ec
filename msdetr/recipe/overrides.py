"""Overrides of single fields, as in ``train.lr=1e-4``."""

from __future__ import annotations

import json
from functools import cache

from msdetr.recipe.expectation import SchemaView
from msdetr.recipe.schema import Recipe
from msdetr.recipe.yaml_source import Entry, Place, RecipeProblem, read_text

SET = "`overrides`"
_PLACE = Place(SET)
_NO_PATH = ("", "null")


def read_override(text: str) -> tuple[Entry | None, list[RecipeProblem]]:
    """Read ``a.b=value``: a dotted key, the first ``=``, a YAML value.

    The value of a field that is a path is no YAML: it is the path, character by character, except
    that nothing and ``null`` leave the field without a path.

    Returns:
        Nested mappings down to the value (None if there is a mistake) and the mistakes.
    """
    key, separator, value = text.partition("=")
    keys = key.strip().split(".")
    if not separator or not all(keys):
        message = f"must look like key=value with a dotted key, got '{text}'"
        return None, [RecipeProblem(_PLACE, "", message)]
    problems: list[RecipeProblem] = []
    if _is_path(tuple(keys)):
        entry: Entry | None = _read_path(value, is_spaced=key.endswith(" "))
    else:
        entry, problems = read_text(value, SET, is_file=False, path=tuple(keys))
    if entry is None:
        return None, problems
    for name in reversed(keys):
        entry = Entry(_PLACE, {name: entry})
    return entry, problems


def write_override(key: str, value: object) -> str:
    """Return the text that :func:`read_override` reads as a value of JSON at a dotted key."""
    if isinstance(value, str) and value and _is_path(tuple(key.strip().split("."))):
        return f"{key.strip()}={f'./{value}' if value.strip() in _NO_PATH else value}"
    return f"{key}={json.dumps(value)}"


def _read_path(value: str, *, is_spaced: bool) -> Entry:
    # In ``key = value`` the blanks belong to the sign.
    value = value.removeprefix(" ") if is_spaced else value
    return Entry(_PLACE, None if value.strip() in _NO_PATH else value)


@cache
def _is_path(keys: tuple[str, ...]) -> bool:
    return _schema().is_path(keys)


@cache
def _schema() -> SchemaView:
    return SchemaView(Recipe.model_json_schema())
