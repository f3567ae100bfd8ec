"""In which fields two resolved recipes differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msdetr.recipe.dump import recipe_to_dict
from msdetr.recipe.loading import load_recipe
from msdetr.recipe.schema import Recipe

_RUN_RECIPE = "recipe.yaml"
_DESCRIPTION = "description"


@dataclass(frozen=True)
class Difference:
    """A field with different values in two recipes.

    Attributes:
        key: Dotted key; of a whole section where only one of the two has it.
        first: Value in the first recipe; None where it has no such field.
        second: Value in the second recipe, likewise.
    """

    key: str
    first: Any
    second: Any


def load_compared(place: str) -> Recipe:
    """Load a recipe to be compared.

    Args:
        place: Run directory, or as for ``load_recipe``.

    Raises:
        RecipeError: Something is wrong with it.
    """
    stored = Path(place) / _RUN_RECIPE
    return load_recipe(stored if stored.is_file() else place)


def find_differences(first: Recipe, second: Recipe) -> list[Difference]:
    """List the fields in which two recipes differ, in the order of the schema."""
    return list(_compare(recipe_to_dict(first), recipe_to_dict(second), ""))


def find_settings_that_differ(first: Recipe, second: Recipe) -> list[Difference]:
    """List what :func:`find_differences` does, without the description."""
    return [found for found in find_differences(first, second) if found.key != _DESCRIPTION]


def _compare(
    first: Mapping[str, Any], second: Mapping[str, Any], prefix: str
) -> Iterator[Difference]:
    for key in dict.fromkeys([*first, *second]):
        ours, theirs = first.get(key), second.get(key)
        if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
            yield from _compare(ours, theirs, f"{prefix}{key}.")
        elif ours != theirs:
            yield Difference(prefix + key, ours, theirs)
