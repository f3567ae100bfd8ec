"""Strict reading of COCO JSON, with one line per problem."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msdetr.data.coco_values import (
    FIELDS,
    IDS,
    NULL_VALUE,
    READINGS,
    REPEATED_ENTRY,
    Field,
    describe,
    is_integer,
)
from msdetr.data.findings import Finding, present
from msdetr.errors import DataError, Problem, on_one_line

_Readings = defaultdict[str, list[str]]
"""Places in the file by what was read there otherwise."""


@dataclass(frozen=True, eq=False)
class AnnotationFile:
    """An annotation file whose every entry is well-formed; its ids may contradict each other.

    Attributes:
        path: The file.
        sha256: Hash of its bytes.
        content: Its content; annotations without ``iscrowd`` or ``area`` have 0 and the
            area of the box.
        readings: Findings about values that were not as COCO defines them but had one meaning.
    """

    path: Path
    sha256: str
    content: dict[str, Any]
    readings: tuple[Finding, ...] = ()

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
        DataError: If the file is missing, is not JSON or is not COCO; every kind of problem is
            named, contradictions of the sound entries as well.
    """
    text = _read(path)
    content = _parse(path, text)
    read: _Readings = defaultdict(list)
    problems = [*_check_layout(content), *_check_fields(content, read)]
    if problems:
        found = find_inconsistent_ids(_comparable(content))
        _raise_if_any(path, [*problems, *(inconsistent.problem() for inconsistent in found)])
    for name in FIELDS:
        content[name] = _without_repeats(name, content[name], read)
    for entry in content["annotations"]:
        entry.setdefault("iscrowd", 0)
        entry.setdefault("area", entry["bbox"][2] * entry["bbox"][3])
    for entry in content["categories"]:
        # Names go into tables, pictures, pages and checkpoints: made safe once, here.
        entry["name"] = on_one_line(entry["name"])
    readings = present(
        Finding.of(check, "warning", message, read[check]) for check, message in READINGS.items()
    )
    return AnnotationFile(path, sha256(text).hexdigest(), content, readings)


def find_inconsistent_ids(
    content: Mapping[str, Sequence[Mapping[str, Any]]],
) -> list[InconsistentIds]:
    """List ids that occur more than once and references to nothing.

    Args:
        content: The lists; where images or categories are missing, nothing refers to them.
    """
    found = []
    for name, kind in (("images", "image"), ("annotations", "annotation"), ("categories", "class")):
        if name not in content:
            continue
        ids, counts = np.unique(column(content[name], "id"), return_counts=True)
        what = "occurs more than once"
        found.append((f"duplicate_{kind}_id", f"{name}.id", what, ids[counts > 1]))
    for key, name, kind in (
        ("image_id", "images", "image"),
        ("category_id", "categories", "class"),
    ):
        if name not in content or "annotations" not in content:
            continue
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
    kept = {name: _first_of_each_id(content[name]) for name in FIELDS}
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
    for key in FIELDS:
        if key not in content:
            problems.append(Problem(key, "not a COCO annotation file: this key is missing"))
        elif not isinstance(content[key], list):
            got = type(content[key]).__name__
            problems.append(Problem(key, f"not COCO: expected a list, got a {got}"))
        elif key != "annotations" and not content[key]:
            problems.append(Problem(key, "the list is empty"))
    return problems


def _check_fields(content: Mapping[str, Any], read: _Readings) -> list[Problem]:
    problems = []
    for name, fields in FIELDS.items():
        entries = content.get(name)
        if not isinstance(entries, list):
            continue
        others = [i for i, entry in enumerate(entries) if type(entry) is not dict]
        if others:
            problems.append(Problem(f"{name}[{others[0]}]", "expected an object" + _more(others)))
            continue
        checks = (_check_field(name, entries, field, read) for field in fields)
        problems.extend(problem for problem in checks if problem is not None)
    return problems


def _check_field(
    name: str, entries: Sequence[dict[str, Any]], field: Field, read: _Readings
) -> Problem | None:
    key = field.key
    wrong = [
        index
        for index, entry in enumerate(entries)
        if not (field.is_valid(entry[key]) if key in entry else field.optional)
    ]
    wrong = [
        index for index in wrong if not _is_read(entries[index], field, f"{name}[{index}]", read)
    ]
    if not wrong:
        return None
    entry = entries[wrong[0]]
    got = f"got {describe(entry[key])}" if key in entry else "the key is missing"
    return Problem(f"{name}[{wrong[0]}].{key}", f"expected {field.expected}, {got}{_more(wrong)}")


def _is_read(entry: dict[str, Any], field: Field, where: str, read: _Readings) -> bool:
    """Put what a value means in its place, if that is certain."""
    key = field.key
    if key not in entry:
        return False
    if field.optional and entry[key] is None:
        del entry[key]
        read[NULL_VALUE].append(f"{where}.{key}")
        return True
    meant = field.read(entry[key])
    if meant is None or not field.is_valid(meant.value):
        return False
    entry[key] = meant.value
    read[meant.check].append(f"{where}.{key}")
    return True


def _comparable(content: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Return what can be searched for contradictions, although other things are wrong.

    Of annotations the sound ones; images and categories only if all of them are, as otherwise
    references to the others would seem to be at fault.
    """
    comparable = {}
    for name, keys in IDS.items():
        entries = content.get(name)
        if not isinstance(entries, list):
            continue
        sound = [
            entry
            for entry in entries
            if type(entry) is dict and all(is_integer(entry.get(key)) for key in keys)
        ]
        if name == "annotations" or (sound and len(sound) == len(entries)):
            comparable[name] = sound
    return comparable


def _without_repeats(
    name: str, entries: list[dict[str, Any]], read: _Readings
) -> list[dict[str, Any]]:
    """Drop entries that say what an earlier one of their id says."""
    first: dict[int, dict[str, Any]] = {}
    kept = []
    for index, entry in enumerate(entries):
        same = first.setdefault(entry["id"], entry)
        if same is entry or same != entry:
            kept.append(entry)
        else:
            read[REPEATED_ENTRY].append(f"{name}[{index}]")
    return kept


def _more(found: Sequence[Any] | np.ndarray[Any, Any]) -> str:
    return f" (and {len(found) - 1} more like it)" if len(found) > 1 else ""


def _raise_if_any(path: Path, problems: Sequence[Problem]) -> None:
    if problems:
        raise DataError(str(path), problems)
