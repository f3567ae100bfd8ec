"""Which values COCO's keys have, and how tools write them otherwise."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

# Longer names are none of files.
_LONGEST_PATH = 4096
_INT64 = 2**63
_LARGEST_EXACT = 2.0**53
_WHOLE_NUMBER = re.compile(r"[+-]?\d{1,19}")

NUMBER_AS_TEXT, DECIMAL_INTEGER, NULL_VALUE, NUMBER_AS_NAME, REPEATED_ENTRY = (
    "number_as_text",
    "decimal_integer",
    "null_value",
    "number_as_name",
    "repeated_entry",
)
READINGS = {
    NUMBER_AS_TEXT: "values are numbers written as text; they are read as numbers",
    DECIMAL_INTEGER: "whole numbers are written with a decimal point; they are read as integers",
    NULL_VALUE: "keys that may be left out are null; they are taken for left out",
    NUMBER_AS_NAME: "class names are numbers; they are read as text",
    REPEATED_ENTRY: "entries repeat another one word for word; they are left out",
}
"""What is said of values that are not as COCO defines them but have one meaning, by check."""


@dataclass(frozen=True)
class Reading:
    """A value that is not as COCO defines it, but has one meaning.

    Attributes:
        check: One of ``READINGS``.
        value: What it means.
    """

    check: str
    value: Any


@dataclass(frozen=True)
class Field:
    """A key that every entry of a list has, unless it is optional.

    Attributes:
        key: The key.
        is_valid: Whether a value is as COCO defines it.
        expected: What it must be, in words.
        read: Finds the meaning of another value; None where it has none.
        optional: Whether the key may be missing, or null.
    """

    key: str
    is_valid: Callable[[Any], bool]
    expected: str
    read: Callable[[Any], Reading | None] = lambda _: None
    optional: bool = False


def is_integer(value: object) -> bool:
    """Say whether a value is an integer of 64 bits."""
    return type(value) is int and -_INT64 <= value < _INT64


def describe(value: object) -> str:
    """Show a wrong value, briefly."""
    if type(value) is int and not is_integer(value):
        bits = "an integer of more than 64 bits"
        text = str(value) if abs(value) < 10**30 else f"{value.bit_length()} bits"
        return f"{bits} ({text})"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


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


def _read_integer(value: object) -> Reading | None:
    if isinstance(value, str) and _WHOLE_NUMBER.fullmatch(value.strip()):
        return Reading(NUMBER_AS_TEXT, int(value))
    text = _read_number(value)
    number = value if text is None else text.value
    # Beyond, floats are whole numbers by necessity, and not the one that was written.
    if isinstance(number, float) and number.is_integer() and abs(number) <= _LARGEST_EXACT:
        return Reading(DECIMAL_INTEGER if text is None else text.check, int(number))
    return None


def _read_number(value: object) -> Reading | None:
    if not isinstance(value, str) or "_" in value:
        return None
    try:
        return Reading(NUMBER_AS_TEXT, float(value))
    except ValueError:
        return None


def _read_box(value: object) -> Reading | None:
    if not isinstance(value, list):
        return None
    read = [_read_number(number) for number in value]
    meant = [n if r is None else r.value for n, r in zip(value, read, strict=True)]
    return Reading(NUMBER_AS_TEXT, meant) if any(read) else None


def _read_name(value: object) -> Reading | None:
    return Reading(NUMBER_AS_NAME, str(value)) if _is_number(value) else None


FIELDS = {
    "images": (
        Field("id", is_integer, "an integer", _read_integer),
        Field("file_name", _is_file_name, "a file name"),
        Field("height", _is_size, "a positive integer", _read_integer),
        Field("width", _is_size, "a positive integer", _read_integer),
    ),
    "annotations": (
        Field("id", is_integer, "an integer", _read_integer),
        Field("image_id", is_integer, "an integer", _read_integer),
        Field("category_id", is_integer, "an integer", _read_integer),
        Field("bbox", _is_box, "a list of 4 finite numbers (x, y, width, height)", _read_box),
        Field("iscrowd", lambda v: v in (0, 1), "0 or 1", _read_integer, optional=True),
        Field("area", _is_number, "a finite number", _read_number, optional=True),
    ),
    "categories": (
        Field("id", is_integer, "an integer", _read_integer),
        Field("name", lambda v: type(v) is str, "a string", _read_name),
    ),
}
"""Keys of the entries of COCO's lists."""

IDS = {
    "images": ("id",),
    "annotations": ("id", "image_id", "category_id"),
    "categories": ("id",),
}
"""Those that are ids."""
