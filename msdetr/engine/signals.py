"""SIGINT and SIGTERM as a request that the loop answers between two steps."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Self

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopSignalError(Exception):
    """A signal asked to stop in a section that may be left at once.

    Args:
        number: The signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class StopRequest:
    """Notes SIGINT and SIGTERM while it is entered.

    The first signal is noted (or raised, inside ``immediate``); after it the previous handlers
    are back, so that a second Ctrl-C stops at once. Outside the main thread, where Python
    allows no handlers, it notes nothing.

    Attributes:
        number: The signal noted, or None.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._immediate = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Self:
        """Take over the signals' handling."""
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        """Give the signals back to their previous handlers."""
        self._restore()

    @contextmanager
    def immediate(self) -> Iterator[None]:
        """Raise ``StopSignalError`` at once when a signal comes inside the ``with`` block."""
        self._immediate = True
        try:
            if self.number is not None:
                raise StopSignalError(self.number)
            yield
        finally:
            self._immediate = False

    def _note(self, number: int, _: FrameType | None) -> None:
        self.number = number
        self._restore()
        if self._immediate:
            raise StopSignalError(number)

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
