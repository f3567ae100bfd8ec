"""Name or path, and overrides -> Recipe, with all problems reported at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from msdetr.errors import RecipeError
from msdetr.recipe.former_fields import replace_former_fields
from msdetr.recipe.merging import merge
from msdetr.recipe.normalization import take_over_normalization
from msdetr.recipe.overrides import read_override
from msdetr.recipe.packaged import find_parent, find_recipe, nearest, packaged_folder
from msdetr.recipe.problems import format_problems
from msdetr.recipe.schema import Recipe
from msdetr.recipe.scheme import settle_assigner
from msdetr.recipe.validation import validate
from msdetr.recipe.yaml_source import Entry, Place, RecipeProblem, Scalar, read_file

EXTENDS = "extends"
_EMPTY = "must be a mapping of sections; the shortest recipe is 'extends: ddetr_300q'"


def load_recipe(name_or_path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Load a recipe with everything that it extends.

    Args:
        name_or_path: An existing file, else the name of a packaged recipe.
        overrides: ``key=value`` with a dotted key and a YAML value; the last one wins.

    Returns:
        The resolved recipe: every field has its final value.

    Raises:
        RecipeError: Something is wrong; all problems that can be found at once, each with its
            file and line, the dotted key, what was expected and what was found.
    """
    source = str(name_or_path)
    layers, problems = _read_chain(find_recipe(name_or_path), source)
    return _resolve(layers, problems, overrides, source)


def recipe_from_dict(
    values: Mapping[str, object], source: str, overrides: Sequence[str] = ()
) -> Recipe:
    """Turn nested plain values, as from JSON, into a recipe.

    Args:
        values: What ``recipe_to_dict`` returned.
        source: Where the values come from, for messages.
        overrides: As in ``load_recipe``.

    Raises:
        RecipeError: As in ``load_recipe``, without lines.
    """
    return _resolve([_entry(values, Place(source))], [], overrides, source)


def _resolve(
    layers: list[Entry] | None, problems: list[RecipeProblem], overrides: Sequence[str], source: str
) -> Recipe:
    top = []
    for text in overrides:
        entry, mistakes = read_override(text)
        problems = [*problems, *mistakes]
        top += [entry] if entry else []
    if layers is None:
        raise RecipeError(source, format_problems(problems, source))
    tree = Entry(Place(source), {})
    for layer in [*layers, *top]:
        problems = [*problems, *replace_former_fields(layer)]
        tree = merge(*settle_assigner(tree, layer))
    recipe, more = validate(tree, {problem.key for problem in problems})
    if recipe is None or problems:
        raise RecipeError(source, format_problems([*problems, *more], source))
    recipe, unknown = take_over_normalization(recipe, tree)
    if unknown:
        raise RecipeError(source, format_problems(unknown, source))
    return recipe


def _read_chain(file: Path, source: str) -> tuple[list[Entry] | None, list[RecipeProblem]]:
    """Read a file and its ancestors: layers, oldest first, or None if one is missing."""
    layers: list[Entry] = []
    problems: list[RecipeProblem] = []
    chain = [file]
    while True:
        name = source if len(chain) == 1 else _display(chain[-1], file)
        tree, mistakes = read_file(chain[-1], name)
        problems += mistakes
        if tree is None:
            return None, problems
        if not isinstance(tree.value, dict):
            return None, [*problems, RecipeProblem(tree.place, "", _EMPTY)]
        extends = tree.value.pop(EXTENDS, None)
        if len(chain) > 1:
            tree.value.pop("description", None)
        layers.insert(0, tree)
        if extends is None:
            return layers, problems
        parent = _find_parent(extends, chain, file)
        if isinstance(parent, RecipeProblem):
            return None, [*problems, parent]
        chain.append(parent)


def _find_parent(extends: Entry, chain: list[Path], first: Path) -> Path | RecipeProblem:
    if not isinstance(extends.value, str):
        return RecipeProblem(extends.place, EXTENDS, "must be the path or name of one recipe")
    parent = find_parent(extends.value, chain[-1])
    if parent is None:
        message = f"'{extends.value}' is neither a file beside this one nor a packaged recipe"
        message += nearest(Path(extends.value))
        return RecipeProblem(extends.place, EXTENDS, message)
    if parent.resolve() in [path.resolve() for path in chain]:
        circle = " -> ".join(_display(path, first) for path in [*chain, parent])
        return RecipeProblem(extends.place, EXTENDS, f"must not lead back to itself: {circle}")
    return parent


def _display(path: Path, first: Path) -> str:
    """Name an ancestor as briefly as possible: relative to the first file or to the package."""
    for folder in (first.parent.resolve(), packaged_folder().resolve()):
        if path.resolve().is_relative_to(folder):
            return str(path.resolve().relative_to(folder))
    return str(path)


def _entry(value: object, place: Place) -> Entry:
    if isinstance(value, Mapping):
        return Entry(place, {str(key): _entry(item, place) for key, item in value.items()})
    if isinstance(value, list | tuple):
        return Entry(place, [_entry(item, place) for item in value])
    return Entry(place, value if isinstance(value, Scalar) else str(value))
