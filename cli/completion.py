"""What the shell completes: names of recipes, and keys of fields with their descriptions."""

from __future__ import annotations

from collections.abc import Iterable

from msdetr.recipe.fields import list_fields
from msdetr.recipe.packaged import packaged_recipes

Completion = tuple[str, str]
"""What is inserted, and what is shown beside it where the shell can."""

# Longer ones would be broken into lines, which shells show badly.
_MAX_HELP = 72


def complete_recipe(incomplete: str) -> list[Completion]:
    """List the packaged recipes that start with a text; the shell completes paths itself."""
    return [(info.name, _help(info.summary)) for info in packaged_recipes(incomplete)]


def complete_override(incomplete: str) -> list[Completion]:
    """List the fields that start with a text, as ``key=``, or the values of one after ``key=``."""
    key, has_value, value = incomplete.partition("=")
    fields = [field for field in list_fields() if not field.is_section]
    if not has_value:
        return [(f"{f.key}=", _help(f.description)) for f in fields if f.key.startswith(key)]
    choices = next((f.choices for f in fields if f.key == key), ())
    return [(f"{key}={choice}", "") for choice in _starting(choices, value)]


def _starting(words: Iterable[str], prefix: str) -> list[str]:
    return [word for word in words if word.startswith(prefix)]


def _help(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _MAX_HELP else f"{line[: _MAX_HELP - 3]}..."
