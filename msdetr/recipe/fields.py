"""Every field of a recipe, with what it must be, its default, and who sets it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from msdetr.recipe.expectation import SchemaPlace, SchemaView
from msdetr.recipe.packaged import packaged_folder
from msdetr.recipe.schema import Recipe
from msdetr.recipe.yaml_source import read_file


@dataclass(frozen=True)
class RecipeField:
    """A field, or a section, of a recipe.

    Attributes:
        key: Dotted key.
        is_section: Whether it holds fields rather than a value.
        expected: Type and range, in words.
        unit: Unit of its number; empty where it has none.
        choices: Words that it may be, where they are listed.
        default: Value where no recipe sets it, as JSON; for a section None means that it is left
            out.
        is_required: Whether there is no default.
        description: What it is.
        of_type: The ``type`` that its section must have; empty where it has none, or may have any.
    """

    key: str
    is_section: bool
    expected: str
    unit: str
    choices: tuple[str, ...]
    default: Any
    is_required: bool
    description: str
    of_type: str


@cache
def list_fields() -> tuple[RecipeField, ...]:
    """List all fields and sections, in the order of the schema; each key once."""
    view = SchemaView(Recipe.model_json_schema())
    fields: dict[str, RecipeField] = {}
    for place in view.places():
        field, known = _field(place, view), fields.get(place.key)
        fields[place.key] = field if known is None else _merge(known, field)
    return tuple(fields.values())


def list_settings() -> Iterator[tuple[str, str, str]]:
    """List, for every packaged file that sets it, a field with the file and the value.

    Yields:
        Dotted key, name of the file without its ending, value as plain values; files that extend
        others are not resolved. A section set to null counts as a field.
    """
    folder = packaged_folder()
    keys = {field.key for field in list_fields()}
    known = {field.key for field in list_fields() if not field.is_section}
    for path in [*sorted(folder.glob("_base/*.yaml")), *sorted(folder.glob("*.yaml"))]:
        tree, _ = read_file(path, path.name)
        if tree is not None:
            name = str(path.relative_to(folder).with_suffix(""))
            found = _flatten(tree.plain(), "", known)
            yield from ((key, name, value) for key, value in found if key in keys)


def _field(place: SchemaPlace, view: SchemaView) -> RecipeField:
    node = place.node
    return RecipeField(
        key=place.key,
        is_section=place.is_section,
        expected=view.described(node),
        unit=view.unit_of(node),
        choices=tuple(view.choices_of(node)),
        default=node.get("default"),
        is_required=place.is_required,
        description=node.get("description", ""),
        of_type=place.of_type,
    )


def _merge(first: RecipeField, second: RecipeField) -> RecipeField:
    """Join the fields of one name that alternative sections have."""
    words = list(dict.fromkeys([*first.expected.split(" or "), second.expected]))
    return replace(
        first,
        expected=" or ".join(words),
        choices=tuple(dict.fromkeys([*first.choices, *second.choices])),
        of_type="",
        is_required=first.is_required and second.is_required,
    )


def _flatten(tree: Any, prefix: str, known: set[str]) -> Iterator[tuple[str, Any]]:  # noqa: ANN401
    for name, value in tree.items() if isinstance(tree, Mapping) else ():
        key = prefix + name
        if isinstance(value, Mapping) and key not in known:
            yield from _flatten(value, f"{key}.", known)
        else:
            yield key, value
