"""Name or path, and overrides -> Recipe, with all problems reported at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from msdetr.errors import RecipeError

from .merging import merge
from .overrides import read_override
from .packaged import find_parent, find_recipe, nearest, packaged_folder
from .problems import format_findings
from .schema import Recipe
from .scheme import settle_assigner
from .validation import validate
from .yaml_source import Entry, Finding, Place, Scalar, read_file

EXTENDS = "extends"
_EMPTY = "must be a mapping of sections; the shortest recipe is 'extends: ddetr_300q'"


def load_recipe(name_or_path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Loads a recipe with everything that it extends.

    Args:
        name_or_path: An existing file, else the name of a packaged recipe.
        overrides: `key=value` with a dotted key and a YAML value; the last one wins.

    Returns:
        The resolved recipe: every field has its final value.

    Raises:
        RecipeError: Something is wrong; all problems that can be found at once, each with its
            file and line, the dotted key, what was expected and what was found.
    """
    source = str(name_or_path)
    layers, findings = _read_chain(find_recipe(name_or_path), source)
    return _resolve(layers, findings, overrides, source)


def recipe_from_dict(
    values: Mapping[str, object], source: str, overrides: Sequence[str] = ()
) -> Recipe:
    """Turns nested plain values, as from JSON, into a recipe.

    Args:
        values: What `recipe_to_dict` gave.
        source: Where the values come from, for messages.
        overrides: As in `load_recipe`.

    Raises:
        RecipeError: As in `load_recipe`, without lines.
    """
    return _resolve([_entry(values, Place(source))], [], overrides, source)


def _resolve(
    layers: list[Entry] | None, findings: list[Finding], overrides: Sequence[str], source: str
) -> Recipe:
    top = []
    for text in overrides:
        entry, mistakes = read_override(text)
        findings = [*findings, *mistakes]
        top += [entry] if entry else []
    if layers is None:
        raise RecipeError(source, format_findings(findings, source))
    tree = Entry(Place(source), {})
    for layer in [*layers, *top]:
        tree = merge(*settle_assigner(tree, layer))
    recipe, more = validate(tree, {finding.key for finding in findings})
    if recipe is None or findings:
        raise RecipeError(source, format_findings([*findings, *more], source))
    return recipe


def _read_chain(file: Path, source: str) -> tuple[list[Entry] | None, list[Finding]]:
    """Reads a file and its ancestors: layers from the oldest on, or None if one is missing."""
    layers: list[Entry] = []
    findings: list[Finding] = []
    chain = [file]
    while True:
        name = source if len(chain) == 1 else _display(chain[-1], file)
        tree, mistakes = read_file(chain[-1], name)
        findings += mistakes
        if tree is None:
            return None, findings
        if not isinstance(tree.value, dict):
            return None, [*findings, Finding(tree.place, "", _EMPTY)]
        extends = tree.value.pop(EXTENDS, None)
        if len(chain) > 1:
            tree.value.pop("description", None)
        layers.insert(0, tree)
        if extends is None:
            return layers, findings
        parent = _find_parent(extends, chain, file)
        if isinstance(parent, Finding):
            return None, [*findings, parent]
        chain.append(parent)


def _find_parent(extends: Entry, chain: list[Path], first: Path) -> Path | Finding:
    if not isinstance(extends.value, str):
        return Finding(extends.place, EXTENDS, "must be the path or name of one recipe")
    parent = find_parent(extends.value, chain[-1])
    if parent is None:
        message = f"'{extends.value}' is neither a file beside this one nor a packaged recipe"
        message += nearest(Path(extends.value))
        return Finding(extends.place, EXTENDS, message)
    if parent.resolve() in [path.resolve() for path in chain]:
        circle = " -> ".join(_display(path, first) for path in [*chain, parent])
        return Finding(extends.place, EXTENDS, f"must not lead back to itself: {circle}")
    return parent


def _display(path: Path, first: Path) -> str:
    """Shortest telling name of an ancestor: relative to the first file or to the package."""
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
