"""Progress of work that takes long: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.progress import Progress, track

from msdetr.terminal import LiteralConsole

T = TypeVar("T")

_SECONDS_BETWEEN_LINES = 10.0


def show_progress(
    items: Iterable[T], total: int, title: str, *, quiet: bool = False
) -> Iterator[T]:
    """Yield the items, saying on stderr how many are done.

    Args:
        items: What is processed, one by one.
        total: How many there are.
        title: What is being done.
        quiet: Say nothing.
    """
    console = LiteralConsole(stderr=True, quiet=quiet)
    if console.is_terminal:
        yield from track(items, description=title, total=total, console=console, transient=True)
        return
    last = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        if time.monotonic() - last >= _SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            console.print(f"{title}: {done}/{total}")


@contextmanager
def counting(title: str) -> Iterator[Callable[[int, int], None]]:
    """Show the progress of work that reports (done, total) to a callback.

    Nothing appears unless the callback is called.

    Args:
        title: What is being done.
    """
    console = LiteralConsole(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        shown: list[float] = []

        def report(done: int, total: int) -> None:
            if console.is_terminal:
                tasks = bar.task_ids or [bar.add_task(title, total=total)]
                bar.update(tasks[0], completed=done)
                return
            now = time.monotonic()
            if not shown or now - shown[-1] >= _SECONDS_BETWEEN_LINES or done == total:
                shown.append(now)
                console.print(f"{title}: {done}/{total}")

        yield report
