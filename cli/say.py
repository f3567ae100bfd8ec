"""Printing plain lines."""

from __future__ import annotations

import typer

from msdetr.terminal import printable


def say(text: str, *, err: bool = False) -> None:
    """Print text on stdout, or on stderr, with what a terminal must not get escaped."""
    typer.echo(printable(text), err=err)
