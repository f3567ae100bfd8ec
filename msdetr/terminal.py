"""What is printed: text from files, names and annotations is shown, never interpreted."""

from __future__ import annotations

import sys
from typing import Any

from rich.console import Console
from rich.text import Text

_KEPT = "\n\t"
_LEAST_WIDTH = 80


def printable(text: str) -> str:
    """Escape what a terminal must not get from a file: control characters, half characters.

    Line breaks and tabs stay.
    """
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() or c in _KEPT else c.encode("unicode_escape").decode() for c in text
    )


class LiteralConsole(Console):
    """A rich console for which brackets are brackets and colons are colons.

    Args:
        stderr: Print on stderr instead of stdout.
        quiet: Print nothing.
        options: As for ``rich.console.Console``.
    """

    def __init__(self, *, stderr: bool = False, quiet: bool = False, **options: Any) -> None:  # noqa: ANN401 - rich's own
        super().__init__(
            stderr=stderr, quiet=quiet, markup=False, emoji=False, highlight=False, **options
        )
        # Narrower tables would cut their numbers off; a terminal breaks the lines instead.
        self.width = max(self.width, _LEAST_WIDTH)

    def render_str(self, text: str, **options: Any) -> Text:  # noqa: ANN401 - rich's own
        """Make rich text of a string, of cells and titles of tables as well."""
        return super().render_str(
            printable(text), **{**options, "markup": False, "emoji": False, "highlight": False}
        )

    def say(self, text: str) -> None:
        """Print text without breaking its lines."""
        self.print(text, soft_wrap=True)


def make_streams_lenient() -> None:
    """Let stdout and stderr escape what their encoding lacks, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
