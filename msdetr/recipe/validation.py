"""Tree of values -> Recipe, and pydantic's errors -> problems with places."""

from __future__ import annotations

from collections.abc import Collection

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from msdetr.recipe.conflicts import Conflict
from msdetr.recipe.expectation import SchemaView, shown
from msdetr.recipe.model import BACKBONE_ERROR
from msdetr.recipe.schema import CONFLICTS, Recipe
from msdetr.recipe.yaml_source import Entry, KeyPath, Place, Plain, RecipeProblem, dotted

MAX_PROBLEMS = 100
"""More than these are counted, not listed; conflicts are then not searched for."""


def validate(tree: Entry, known: Collection[str] = ()) -> tuple[Recipe | None, list[RecipeProblem]]:
    """Build the recipe, or list everything that is wrong with the tree.

    Conflicts between fields are searched for even if other fields are invalid: those take their
    defaults meanwhile, and conflicts that involve them are not reported.

    Args:
        tree: The merged layers.
        known: Dotted keys with a problem already; no further problem is reported for them.
    """
    try:
        return Recipe.model_validate(tree.plain()), []
    except ValidationError as error:
        errors = error.errors(include_url=False)
    if errors[0]["type"] == CONFLICTS:
        return None, _conflict_problems(errors[0], tree, known)
    view = SchemaView(Recipe.model_json_schema())
    if len(errors) > MAX_PROBLEMS:
        problems = [problem_of(detail, view, tree) for detail in errors[:MAX_PROBLEMS]]
        rest = f"and {len(errors) - MAX_PROBLEMS} more problems"
        return None, [*problems, RecipeProblem(None, "", rest)]
    problems = [problem_of(detail, view, tree) for detail in errors]
    paths = [_path(view, detail) for detail in errors]
    faulty = {dotted(path) for path in paths} | set(known)
    return None, [
        *(problem for problem in problems if problem.key not in known),
        *_remaining_conflicts(tree, paths, faulty),
    ]


def _place_in_schema(detail: ErrorDetails) -> KeyPath:
    """Path of the field at fault: a list, where pydantic names an element that it lacks."""
    is_element = detail["type"] == "missing" and isinstance(detail["loc"][-1], int)
    return detail["loc"][:-1] if is_element else detail["loc"]


def _path(view: SchemaView, detail: ErrorDetails) -> KeyPath:
    return view.written(_place_in_schema(detail))


def problem_of(detail: ErrorDetails, view: SchemaView, tree: Entry) -> RecipeProblem:
    """Turn one of pydantic's errors into a problem with its place.

    Args:
        detail: The error.
        view: Schema of what was validated.
        tree: Its values.
    """
    path, in_schema = _path(view, detail), _place_in_schema(detail)
    place = tree.place_of(path)
    if detail["type"] == "extra_forbidden":
        return RecipeProblem(place, dotted(path), view.unknown_key(in_schema))
    if detail["type"] == BACKBONE_ERROR:
        return RecipeProblem(place, dotted(path), detail["msg"])
    if detail["type"] == "union_tag_invalid":
        message = view.unknown_type(in_schema, str(detail["ctx"]["tag"]))
        return RecipeProblem(tree.place_of((*path, "type")), dotted((*path, "type")), message)
    if detail["type"] == "missing" and in_schema == detail["loc"]:
        return RecipeProblem(place, dotted(path), f"is missing; must be {view.expected(in_schema)}")
    message = f"must be {view.expected(in_schema)}, got {_shown_at(tree, path)}"
    return RecipeProblem(place, dotted(path), message)


def _remaining_conflicts(
    tree: Entry, paths: list[KeyPath], faulty: set[str]
) -> list[RecipeProblem]:
    values = tree.plain()
    for path in paths:
        values = _without(values, path)
    try:
        Recipe.model_validate(values)
    except ValidationError as error:
        detail = error.errors(include_url=False)[0]
        if detail["type"] == CONFLICTS:
            return _conflict_problems(detail, tree, faulty)
    return []


def _conflict_problems(
    detail: ErrorDetails, tree: Entry, faulty: Collection[str]
) -> list[RecipeProblem]:
    conflicts: list[Conflict] = detail["ctx"]["conflicts"]
    return [
        RecipeProblem(_place_of_conflict(conflict, tree), conflict.key, conflict.message)
        for conflict in conflicts
        if not any(_touches(key, faulty) for key in (conflict.key, *conflict.others))
    ]


def _place_of_conflict(conflict: Conflict, tree: Entry) -> Place | None:
    """Find where the key is written, else where a field that it conflicts with is written."""
    keys = (conflict.key, *conflict.others)
    places = (tree.place_of(key.split("."), exact=True) for key in keys)
    return next((place for place in places if place), None)


def _touches(key: str, faulty: Collection[str]) -> bool:
    return any(
        key == bad or key.startswith(f"{bad}.") or bad.startswith(f"{key}.") for bad in faulty
    )


def _without(values: Plain, path: KeyPath) -> Plain:
    """Drop the value at a path; a faulty list element drops the whole list."""
    if not isinstance(values, dict) or not path or not isinstance(path[0], str):
        return values
    head, rest = path[0], path[1:]
    if not rest or isinstance(rest[0], int):
        return {key: value for key, value in values.items() if key != head}
    return {key: _without(v, rest) if key == head else v for key, v in values.items()}


def _shown_at(tree: Entry, path: KeyPath) -> str:
    entry: Entry | None = tree
    for key in path:
        entry = entry.child(key) if entry else None
    return shown(entry.plain() if entry else None)
