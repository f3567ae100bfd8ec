"""Strict reading of COCO JSON, with one line per problem."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msdetr.errors import DataError, Problem, on_one_line

# Names are kept in one array, as wide as the longest.
_LONGEST_PATH = 4096
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
    # The comparison also rejects NaN and infinities, which Python's JSON reader accepts.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e15


def _is_file_name(value: object) -> bool:
    if type(value) is not str or not 0 < len(value) <= _LONGEST_PATH or "\0" in value:
        return False
    try:
        os.fsencode(value)
    except UnicodeEncodeError:  # half of a surrogate pair: no file has such a name
        return False
    return True


def _is_box(value: object) -> bool:
    return type(value) is list and len(value) == 4 and all(map(_is_number, value))


_FIELDS = {
    "images": (
        _Field("id", _is_int, "an integer"),
        _Field("file_name", _is_file_name, "a file name"),
        _Field("height", _is_size, "a positive integer"),
        _Field("width", _is_size, "a positive integer"),
    ),
    "annotations": (
        _Field("id", _is_int, "an integer"),
        _Field("image_id", _is_int, "an integer"),
        _Field("category_id", _is_int, "an integer"),
        _Field("bbox", _is_box, "a list of 4 finite numbers (x, y, width, height)"),
        _Field("iscrowd", lambda v: v in (0, 1), "0 or 1", optional=True),
        _Field("area", _is_number, "a finite number", optional=True),
    ),
    "categories": (
        _Field("id", _is_int, "an integer"),
        _Field("name", lambda v: type(v) is str, "a string"),
    ),
}


@dataclass(frozen=True, eq=False)
class AnnotationFile:
    """An annotation file whose every entry is well-formed; its ids may contradict each other.

    Attributes:
        path: The file.
        sha256: Hash of its bytes.
        content: Its content; annotations without ``iscrowd`` or ``area`` have 0 and the
            area of the box.
    """

    path: Path
    sha256: str
    content: dict[str, Any]

    def require_consistent(self) -> dict[str, Any]:
        """Return the content.

        Raises:
            DataError: If ids occur twice or refer to nothing.
        """
        found = find_inconsistent_ids(self.content)
        _raise_if_any(self.path, [inconsistent.problem() for inconsistent in found])
        return self.content


@dataclass(frozen=True)
class InconsistentIds:
    """Ids that occur twice or refer to nothing.

    Attributes:
        check: Name of the fault, for machines.
        where: List and key in the file.
        what: What is wrong with each id.
        ids: The ids, ascending.
    """

    check: str
    where: str
    what: str
    ids: tuple[int, ...]

    def problem(self) -> Problem:
        """One line of an error message."""
        return Problem(self.where, f"{self.ids[0]} {self.what}{_more(self.ids)}")


def load_annotations(path: Path) -> dict[str, Any]:
    """Read a COCO annotation file and check it.

    Returns:
        The file's content; annotations without ``iscrowd`` or ``area`` have 0 and the
        area of the box. Control characters in class names are escaped.

    Raises:
        DataError: If the file is missing, is not JSON, is not COCO, or contradicts itself.
    """
    return parse_annotations(path).require_consistent()


def parse_annotations(path: Path) -> AnnotationFile:
    """Read a COCO annotation file and check every entry by itself.

    Raises:
        DataError: If the file is missing, is not JSON or is not COCO.
    """
    text = _read(path)
    content = _parse(path, text)
    _raise_if_any(path, _check_layout(content))
    _raise_if_any(path, _check_fields(content))
    for entry in content["annotations"]:
        entry.setdefault("iscrowd", 0)
        entry.setdefault("area", entry["bbox"][2] * entry["bbox"][3])
    for entry in content["categories"]:
        # Names go into tables, pictures, pages and checkpoints: made safe once, here.
        entry["name"] = on_one_line(entry["name"])
    return AnnotationFile(path, sha256(text).hexdigest(), content)


def find_inconsistent_ids(
    content: Mapping[str, Sequence[Mapping[str, Any]]],
) -> list[InconsistentIds]:
    """List ids that occur more than once and references to nothing."""
    found = []
    for name, kind in (("images", "image"), ("annotations", "annotation"), ("categories", "class")):
        ids, counts = np.unique(column(content[name], "id"), return_counts=True)
        what = "occurs more than once"
        found.append((f"duplicate_{kind}_id", f"{name}.id", what, ids[counts > 1]))
    for key, name, kind in (
        ("image_id", "images", "image"),
        ("category_id", "categories", "class"),
    ):
        unknown = np.setdiff1d(column(content["annotations"], key), column(content[name], "id"))
        what = f"is not among {name}"
        found.append((f"unknown_{kind}_id", f"annotations.{key}", what, unknown))
    return [
        InconsistentIds(check, where, what, tuple(ids.tolist()))
        for check, where, what, ids in found
        if len(ids)
    ]


def drop_inconsistent_entries(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content without second uses of an id and without references to nothing."""
    kept = {name: _first_of_each_id(content[name]) for name in _FIELDS}
    images, categories = ({e["id"] for e in kept[name]} for name in ("images", "categories"))
    kept["annotations"] = [
        entry
        for entry in kept["annotations"]
        if entry["image_id"] in images and entry["category_id"] in categories
    ]
    return {**content, **kept}


def column(entries: Sequence[Mapping[str, Any]], key: str) -> NDArray[np.int64]:
    """Collect the integers [E] that the entries have under a key."""
    return np.fromiter((entry[key] for entry in entries), dtype=np.int64, count=len(entries))


def _first_of_each_id(entries: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    first: dict[int, dict[str, Any]] = {}
    for entry in entries:
        first.setdefault(entry["id"], entry)
    return list(first.values())


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise DataError(str(path), "the annotation file does not exist") from None
    except OSError as error:
        raise DataError(str(path), f"cannot be read ({error})") from None


def _parse(path: Path, text: bytes) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(
            str(path), [Problem(f"line {error.lineno}", f"not JSON: {error.msg}")]
        ) from None
    # A ValueError beyond those is a number of more digits than Python converts.
    except (ValueError, RecursionError) as error:
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


def _more(found: Sequence[Any] | np.ndarray[Any, Any]) -> str:
    return f" (and {len(found) - 1} more like it)" if len(found) > 1 else ""


def _shorten(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _raise_if_any(path: Path, problems: Sequence[Problem]) -> None:
    if problems:
        raise DataError(str(path), problems)
