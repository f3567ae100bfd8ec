"""Locks that a process holds while it works, and that end with it, however it ends.

They are ``flock`` on a file. The kernel gives such a lock back when its holder ends, so that one of
a dead process is simply free. On NFS the server does, once it hears of the holder's end or its
lease runs out; file systems that are mounted without locks refuse (``OSError``).
"""

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

_open_descriptors: set[int] = set()


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
def hold(
    file: Path, *, wait_seconds: float = 0.0, run: str = "", keep_file: bool = True
) -> Iterator[int]:
    """Hold a lock inside the ``with`` block.

    A program that is started inside the block and inherits the descriptor holds the lock as well,
    even if this process dies. Processes that are merely forked do not.

    Args:
        file: What the lock is on; made if need be.
        wait_seconds: How long to wait for another holder.
        run: What this process belongs to.
        keep_file: Leave the file at the end of the block, which a program that holds the lock on
            needs; otherwise it is removed.

    Yields:
        The descriptor.

    Raises:
        HeldError: Another process holds it still.
        OSError: The file system has no locks, or the file cannot be made.
    """
    descriptor = _acquire(file, time.monotonic() + wait_seconds)
    _open_descriptors.add(descriptor)
    try:
        note_holder(descriptor, os.getpid(), run)
        yield descriptor
    finally:
        if not keep_file:
            # Before the lock is free: whoever opened the file meanwhile sees that it is gone.
            file.unlink(missing_ok=True)
        _open_descriptors.discard(descriptor)
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


def _acquire(file: Path, deadline: float) -> int:
    """Return the descriptor of a file that this process has locked, and that has its name still."""
    while True:
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor = _open(file)
        if descriptor is None:
            continue
        try:
            if _lock(descriptor, file, deadline) and _has_name(descriptor, file):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _open(file: Path) -> int | None:
    """Open a file, made if need be; None where its folder was removed meanwhile."""
    try:
        return os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    except FileNotFoundError:
        return None


def _lock(descriptor: int, file: Path, deadline: float) -> bool:
    """Try once to lock; after the deadline another holder is an error."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        if time.monotonic() >= deadline:
            raise HeldError(read_holder(file)) from None
        time.sleep(_SECONDS_BETWEEN_TRIES)
        return False
    return True


def _has_name(descriptor: int, file: Path) -> bool:
    """Tell whether a file was not removed by its last holder before it was locked."""
    try:
        return os.path.samestat(os.fstat(descriptor), file.stat())
    except FileNotFoundError:
        return False


def _forget_locks() -> None:
    """Close a forked child's copies: what it outlives its parent by must not keep others out."""
    for descriptor in _open_descriptors:
        os.close(descriptor)
    _open_descriptors.clear()


os.register_at_fork(after_in_child=_forget_locks)
