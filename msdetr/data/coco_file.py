"""Strict reading of COCO JSON: what is wrong is said in one line per problem."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from msdetr.errors import DataError, Problem

_INT64 = 2**63


@dataclass(frozen=True)
class _Field:
    """A key that every entry of a list has, unless a default is given."""

    key: str
    is_valid: Callable[[Any], bool]
    expected: str
    optional: bool = False


def _is_int(value: object) -> bool:
    return type(value) is int and -_INT64 <= value < _INT64


def _is_size(value: object) -> bool:
    return type(value) is int and 0 < value < _INT64


def _is_number(value: object) -> bool:
    # The comparison also refuses NaN and infinities, which Python's JSON reader accepts.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e15


def _is_box(value: object) -> bool:
    return type(value) is list and len(value) == 4 and all(map(_is_number, value))


_FIELDS = {
    "images": (
        _Field("id", _is_int, "an integer"),
        _Field("file_name", lambda v: type(v) is str and v != "", "a file name"),
        _Field("height", _is_size, "a positive integer"),
        _Field("width", _is_size, "a positive integer"),
    ),
    "annotations": (
        _Field("id", _is_int, "an integer"),
        _Field("image_id", _is_int, "an integer"),
        _Field("category_id", _is_int, "an integer"),
        _Field("bbox", _is_box, "a list of 4 finite numbers (x, y, width, height)"),
        _Field("iscrowd", lambda v: v in {0, 1}, "0 or 1", optional=True),
        _Field("area", _is_number, "a finite number", optional=True),
    ),
    "categories": (
        _Field("id", _is_int, "an integer"),
        _Field("name", lambda v: type(v) is str, "a string"),
    ),
}


def load_annotations(path: Path) -> dict[str, Any]:
    """Read a COCO annotation file and check it.

    Returns:
        The file's content; annotations without ``iscrowd`` or ``area`` have got 0 and the
        area of the box.

    Raises:
        DataError: If the file is missing, is not JSON, is not COCO, or contradicts itself.
    """
    content = _parse(path)
    _raise_if_any(path, _check_layout(content))
    _raise_if_any(path, _check_fields(content))
    _raise_if_any(path, _check_references(content))
    for entry in content["annotations"]:
        entry.setdefault("iscrowd", 0)
        entry.setdefault("area", entry["bbox"][2] * entry["bbox"][3])
    return content


def _parse(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise DataError(str(path), "the annotation file does not exist") from None
    except json.JSONDecodeError as error:
        raise DataError(
            str(path), [Problem(f"line {error.lineno}", f"not JSON: {error.msg}")]
        ) from None
    except (OSError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(str(path), f"cannot be read as JSON ({error})") from None
    if not isinstance(content, dict):
        raise DataError(
            str(path),
            "not a COCO annotation file: expected an object with the keys images, annotations "
            f"and categories, got a {type(content).__name__}",
        )
    return content


def _check_layout(content: Mapping[str, Any]) -> list[Problem]:
    problems = []
    for key in _FIELDS:
        if key not in content:
            problems.append(Problem(key, "not a COCO annotation file: this key is missing"))
        elif not isinstance(content[key], list):
            got = type(content[key]).__name__
            problems.append(Problem(key, f"not COCO: expected a list, got a {got}"))
        elif key != "annotations" and not content[key]:
            problems.append(Problem(key, "the list is empty"))
    return problems


def _check_fields(content: Mapping[str, Sequence[Any]]) -> list[Problem]:
    problems = []
    for name, fields in _FIELDS.items():
        entries = content[name]
        others = [i for i, entry in enumerate(entries) if type(entry) is not dict]
        if others:
            problems.append(Problem(f"{name}[{others[0]}]", "expected an object" + _more(others)))
            continue
        checks = (_check_field(name, entries, field) for field in fields)
        problems.extend(problem for problem in checks if problem is not None)
    return problems


def _check_field(name: str, entries: Sequence[Any], field: _Field) -> Problem | None:
    key = field.key
    wrong = [
        index
        for index, entry in enumerate(entries)
        if not (field.is_valid(entry[key]) if key in entry else field.optional)
    ]
    if not wrong:
        return None
    entry = entries[wrong[0]]
    got = f"got {_shorten(entry[key])}" if key in entry else "the key is missing"
    return Problem(f"{name}[{wrong[0]}].{key}", f"expected {field.expected}, {got}{_more(wrong)}")


def _check_references(content: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Problem]:
    problems = []
    for name in _FIELDS:
        ids, counts = np.unique(_column(content[name], "id"), return_counts=True)
        problems.extend(_problem_of_ids(f"{name}.id", "occurs more than once", ids[counts > 1]))
    for key, name in (("image_id", "images"), ("category_id", "categories")):
        used = _column(content["annotations"], key)
        unknown = np.setdiff1d(used, _column(content[name], "id"))
        problems.extend(_problem_of_ids(f"annotations.{key}", f"is not among {name}", unknown))
    return problems


def _column(entries: Sequence[Mapping[str, Any]], key: str) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.fromiter((entry[key] for entry in entries), dtype=np.int64, count=len(entries))


def _problem_of_ids(
    where: str, what: str, ids: np.ndarray[Any, np.dtype[np.int64]]
) -> list[Problem]:
    return [Problem(where, f"{ids[0]} {what}{_more(ids)}")] if len(ids) else []


def _more(found: Sequence[Any] | np.ndarray[Any, Any]) -> str:
    return f" (and {len(found) - 1} more like it)" if len(found) > 1 else ""


def _shorten(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _raise_if_any(path: Path, problems: Sequence[Problem]) -> None:
    if problems:
        raise DataError(str(path), problems)
