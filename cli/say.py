"""Printing plain lines, and documents for machines."""

from __future__ import annotations

import json
from typing import Any

import typer

from msdetr.files import finite_json
from msdetr.terminal import printable


def say(text: str, *, err: bool = False) -> None:
    """Print text on stdout, or on stderr, with what a terminal must not get escaped."""
    typer.echo(printable(text), err=err)


def say_json(document: Any) -> None:  # noqa: ANN401 - JSON values
    """Print a document as JSON on stdout; numbers that are not finite become null."""
    say(json.dumps(finite_json(document), indent=2, allow_nan=False))
