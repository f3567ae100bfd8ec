"""Progress of work that takes long: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import track

T = TypeVar("T")

_SECONDS_BETWEEN_LINES = 10.0


def show_progress(
    items: Iterable[T], total: int, title: str, *, quiet: bool = False
) -> Iterator[T]:
    """Yield the items, saying on stderr how many are done.

    Args:
        items: Where the work's pieces come from.
        total: How many there are.
        title: What is being done.
        quiet: Say nothing.
    """
    console = Console(stderr=True, quiet=quiet)
    if console.is_terminal:
        yield from track(items, description=title, total=total, console=console, transient=True)
        return
    last = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        if time.monotonic() - last >= _SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            console.print(f"{title}: {done}/{total}", highlight=False)
