"""Printing plain lines, and documents for machines."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import typer

from msdetr.terminal import printable


def say(text: str, *, err: bool = False) -> None:
    """Print text on stdout, or on stderr, with what a terminal must not get escaped."""
    typer.echo(printable(text), err=err)


def say_json(document: Any) -> None:  # noqa: ANN401 - JSON values
    """Print a document as JSON on stdout; numbers that are not finite become null."""
    say(json.dumps(_finite(document), indent=2, allow_nan=False))


def _finite(value: Any) -> Any:  # noqa: ANN401 - JSON values
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return value
