"""Parse the texts of options."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from msdetr.errors import UsageError
from msdetr.recipe.yaml_source import read_text

_MAX_VALUES = 10_000


def parse_size(option: str, text: str | None) -> tuple[int, int] | None:
    """Read height and width in pixels from ``HxW``.

    Args:
        option: Which option holds the text, for messages.
        text: The text; None is passed on.

    Raises:
        UsageError: The text is no size.
    """
    if text is None:
        return None
    match = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text)
    if match is None:
        raise UsageError(option, f"expected height x width in pixels, as in 640x640, got {text!r}")
    return int(match[1]), int(match[2])


def parse_ids(option: str, text: str | None) -> tuple[int, ...]:
    """Read ids such as ``139,285``; none from None.

    Raises:
        UsageError: The text is no list of whole numbers.
    """
    try:
        return () if text is None else tuple(int(part) for part in text.split(","))
    except ValueError:
        message = f"expected numbers separated by commas, as in 139,285, got {text!r}"
        raise UsageError(option, message) from None


def parse_layers(option: str, text: str) -> tuple[int, ...] | None:
    """Read decoder layers such as ``0,5``; None from ``all``.

    Raises:
        UsageError: The text is neither.
    """
    try:
        return None if text == "all" else tuple(int(part) for part in text.split(","))
    except ValueError:
        message = f"expected all, or numbers as in 0,5; got {text!r}"
        raise UsageError(option, message) from None


def parse_numbers(option: str, text: str | None) -> tuple[float, ...] | None:
    """Read a list ``1,2,4``, whose entries may be ranges ``start:end:step`` with both ends.

    Raises:
        UsageError: The text is none, or a number is not finite.
    """
    if text is None:
        return None
    try:
        return tuple(number for part in text.split(",") for number in _expand(part))
    except ValueError:
        message = f"expected a list like 1,2,4 or a range start:end:step, got {text!r}"
        raise UsageError(option, message) from None


def parse_whole_numbers(option: str, text: str | None) -> tuple[int, ...] | None:
    """Read what :func:`parse_numbers` reads, if all numbers are whole.

    Raises:
        UsageError: They are not.
    """
    numbers = parse_numbers(option, text)
    if numbers is None:
        return None
    if any(number != int(number) for number in numbers):
        raise UsageError(option, f"expected whole numbers, got {text!r}")
    return tuple(int(number) for number in numbers)


def parse_share(option: str, text: str) -> float | None:
    """Read one number above 0 and up to 1; None from ``none``.

    Raises:
        UsageError: The text is neither.
    """
    if text.lower() == "none":
        return None
    numbers = parse_numbers(option, text) or ()
    if len(numbers) != 1 or not 0 < numbers[0] <= 1:
        message = f"expected one number above 0 and up to 1, or none, got {text!r}"
        raise UsageError(option, message)
    return numbers[0]


def parse_settings(option: str, texts: Sequence[str]) -> dict[str, Any]:
    """Read settings ``key=value`` with YAML values.

    Raises:
        UsageError: A text is none.
    """
    settings = {}
    for text in texts:
        key, separator, value = text.partition("=")
        if not separator or not key.strip():
            raise UsageError(option, f"expected key=value, as in time=600, got {text!r}")
        entry, problems = read_text(value, option, is_file=False)
        if entry is None or problems:
            message = f"expected a YAML value after {key.strip()}=, got {value!r}"
            raise UsageError(option, message)
        settings[key.strip()] = entry.plain()
    return settings


def _expand(part: str) -> Sequence[float]:
    """Return the numbers of "a" or "a:b:step"."""
    numbers = [float(piece) for piece in part.split(":")]
    if not all(map(math.isfinite, numbers)) or len(numbers) not in {1, 3}:
        raise ValueError(part)
    if len(numbers) == 1:
        return numbers
    start, end, step = numbers
    count = (end - start) / step if step > 0 else -1.0
    if count < 0 or count > _MAX_VALUES:
        raise ValueError(part)
    # Decimal steps add up with rounding errors; settings are compared with others' decimals.
    return [round(start + i * step, 12) for i in range(math.floor(count + 1e-9) + 1)]
