"""Locks that a process holds while it works, and that end with it, however it ends."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

_SECONDS_BETWEEN_TRIES = 0.2


@dataclass(frozen=True)
class Holder:
    """Who holds a lock.

    Attributes:
        pid: Process id.
        host: Name of its machine.
        run: What it belongs to: the run of a study.
    """

    pid: int
    host: str
    run: str = ""

    def __str__(self) -> str:
        """Name it for a message."""
        return f"process {self.pid} on {self.host}"


class HeldError(Exception):
    """Another process holds the lock.

    Args:
        holder: That process; None where it has not said who it is.
    """

    def __init__(self, holder: Holder | None) -> None:
        self.holder = holder
        super().__init__("another process" if holder is None else str(holder))


@contextmanager
def hold(file: Path, *, wait_seconds: float = 0.0, run: str = "") -> Iterator[int]:
    """Hold a lock inside the ``with`` block.

    A process that is started inside the block and inherits the descriptor holds the lock as well,
    even if this one dies.

    Args:
        file: What the lock is on; made if need be, and left.
        wait_seconds: How long to wait for another holder.
        run: What this process belongs to.

    Yields:
        The descriptor.

    Raises:
        HeldError: Another process holds it still.
        OSError: The file system has no locks, or the file cannot be made.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        _acquire(descriptor, file, wait_seconds)
        note_holder(descriptor, os.getpid(), run)
        yield descriptor
    finally:
        os.close(descriptor)


def note_holder(descriptor: int, pid: int, run: str = "") -> None:
    """Write into a lock's file which process works under it."""
    text = json.dumps(asdict(Holder(pid, socket.gethostname(), run)))
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, text.encode(), 0)


def is_held(file: Path) -> bool:
    """Return whether a process holds a lock, here or, on a shared file system, elsewhere."""
    try:
        descriptor = os.open(file, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a file system without locks: nobody can hold one
        return False
    finally:
        os.close(descriptor)
    return False


def read_holder(file: Path) -> Holder | None:
    """Return who holds or held a lock last; None where nothing tells."""
    with suppress(OSError, ValueError, TypeError):
        return Holder(**json.loads(file.read_text(encoding="utf-8")))
    return None


def _acquire(descriptor: int, file: Path, wait_seconds: float) -> None:
    deadline = time.monotonic() + wait_seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise HeldError(read_holder(file)) from None
            time.sleep(_SECONDS_BETWEEN_TRIES)
        else:
            return
