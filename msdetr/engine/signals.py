"""SIGINT and SIGTERM as a request that the loop answers once per step."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Self

SIGNALS = (signal.SIGINT, signal.SIGTERM)

# A launcher passes on what the whole process group has already got.
_ECHO_SECONDS = 1.0


class StopSignalError(BaseException):
    """A signal asked to stop in a section that may be left at once.

    Like ``KeyboardInterrupt`` it is no ``Exception``: nobody should take it for a failure.

    Args:
        number: The signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class StopRequest:
    """Notes SIGINT and SIGTERM while it is entered.

    The first signal is noted (or raised, inside ``immediate``). After it a further SIGTERM is
    ignored: the state is being saved, and whoever sends it goes on to SIGKILL. A second Ctrl-C
    that comes later than a second after the first signal stops at once. Outside the main thread,
    where Python allows no handlers, nothing is noted.

    Args:
        is_shared: Whether a launcher watches over several processes.

    Attributes:
        number: The signal noted, or None.
    """

    def __init__(self, *, is_shared: bool = False) -> None:
        self.number: int | None = None
        self._is_shared = is_shared
        self._noted_at = 0.0
        self._immediate = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Self:
        """Take over the signals' handling."""
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Give the signals back to their previous handlers."""
        if kind is not None and self._is_shared and self._previous:
            # The launcher ends the others as soon as the first has left. They are on their way
            # out, and what they say is the only account of what happened.
            self._previous[signal.SIGTERM] = signal.SIG_IGN
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    @contextmanager
    def immediate(self) -> Iterator[None]:
        """Raise ``StopSignalError`` at once when a signal comes inside the ``with`` block."""
        self._immediate = True
        try:
            self.raise_if_noted()
            yield
            # Python swallows what a handler raises inside a destructor.
            self.raise_if_noted()
        finally:
            self._immediate = False

    def raise_if_noted(self) -> None:
        """Raise ``StopSignalError`` if a signal has come."""
        if self.number is not None:
            raise StopSignalError(self.number)

    def _note(self, number: int, _: FrameType | None) -> None:
        now = time.monotonic()
        if self.number is not None:
            if number == signal.SIGINT and now - self._noted_at > _ECHO_SECONDS:
                raise KeyboardInterrupt
            return
        self.number, self._noted_at = number, now
        if self._immediate:
            raise StopSignalError(number)
