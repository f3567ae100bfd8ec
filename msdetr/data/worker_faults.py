"""Data workers that cannot hand over what they made: no shared memory, or no file descriptors.

Batches travel in shared memory, named by descriptors. What fails there fails in a thread of the
worker that sends, of which nobody hears: torch waits for the batch for ever. So a worker says why
through a pipe that was made before, and ends; torch finds the dead worker within seconds, and the
training process reads the reason.
"""

from __future__ import annotations

import errno
import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from multiprocessing.queues import Queue
from pathlib import Path
from types import TracebackType

from msdetr.errors import DataWorkerError, MsdetrError

_TOO_FEW_FILES = {errno.EMFILE, errno.ENFILE}
_FILES = re.compile("Too many open files|received 0 items of ancdata", re.IGNORECASE)
_MEMORY = re.compile("shared memory|Bus error|No space left on device", re.IGNORECASE)
# What saving a checkpoint opens at the same time is less.
_NUM_SPARE = 8
# Written at once, whatever else is written to the pipe.
_MAX_REASON = 400


def is_lack_of_files(error: BaseException) -> bool:
    """Tell whether the operating system refused one more open file."""
    return isinstance(error, OSError) and error.errno in _TOO_FEW_FILES


def explain_lack(error: BaseException | str) -> DataWorkerError | None:
    """Say in one line what workers lack, with the ways out; None if it is something else.

    Args:
        error: What torch, Python or the operating system said.
    """
    lines = str(error).strip().splitlines()
    reason = lines[-1] if lines else ""
    if (isinstance(error, BaseException) and is_lack_of_files(error)) or _FILES.search(str(error)):
        return DataWorkerError(
            "the data workers ran out of file descriptors (Too many open files); raise the limit "
            "(ulimit -n 65536), or set data.num_workers: 0"
        )
    if _MEMORY.search(str(error)):
        return DataWorkerError(
            f"the data workers ran out of shared memory ({reason:.200}); give /dev/shm more room "
            "(containers: --shm-size=8g), or set data.num_workers: 0"
        )
    return None


@contextmanager
def spare_descriptors() -> Iterator[None]:
    """Keep some descriptors back inside the block, for whoever has to save something after it."""
    with ExitStack() as spare:
        for _ in range(_NUM_SPARE):
            spare.enter_context(Path(os.devnull).open("rb"))
        yield


@contextmanager
def leaving_child_signal() -> Iterator[None]:
    """Keep torch from raising, wherever the main thread is, because a data worker died.

    Inside the block it may set its handler of SIGCHLD. Dead workers are also found, within
    seconds, when the next batch is asked for: where nothing is half done.
    """
    before = signal.getsignal(signal.SIGCHLD)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGCHLD) is not before:
            signal.signal(signal.SIGCHLD, before)


@dataclass(frozen=True)
class _WorkerStart:
    """What every worker does first; goes to it by inheritance or by pickling."""

    writer: Connection

    def __call__(self, _: int) -> None:
        # Ctrl-C and time limits signal the whole group: the training process then saves its state
        # and still needs its workers.
        os.setsid()
        sys.excepthook = self.report
        # Python's own hook prints and goes on.
        Queue._on_queue_feeder_error = staticmethod(self.end)  # type: ignore[attr-defined]

    def end(self, error: BaseException, _: object = None) -> None:
        """End the worker because a batch cannot be sent."""
        text = f"{type(error).__name__}: {error}"
        self.writer.send_bytes(text.encode(errors="replace")[:_MAX_REASON])
        os._exit(1)

    def report(
        self, kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        """Take an exception of a thread that sends."""
        if is_lack_of_files(error):
            self.end(error)
        report_unless_abandoned(kind, error, trace)


def report_unless_abandoned(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Print an exception of a worker's thread, unless the training process is gone.

    A training process that is stopped while it receives a batch closes the connection to the
    thread that sends it. Failures to make a batch are not seen here: they are sent to the training
    process.
    """
    if not issubclass(kind, (EOFError, ConnectionError)):
        sys.__excepthook__(kind, error, trace)


class WorkerReasons:
    """Hears from workers why they ended.

    Attributes:
        start: What the workers are to call first.
    """

    def __init__(self) -> None:
        self._reader, writer = Pipe(duplex=False)
        self.start = _WorkerStart(writer)

    @contextmanager
    def explaining(self) -> Iterator[None]:
        """Turn failures to receive a batch inside the block into one line each.

        Raises:
            DataWorkerError: The workers lack something, or said why they ended.
        """
        try:
            with spare_descriptors():
                yield
        except MsdetrError:
            raise
        except Exception as error:
            said = self._reader.recv_bytes().decode() if self._reader.poll() else None
            explained = explain_lack(error) if said is None else explain_lack(said)
            if explained is None and said is not None:
                explained = DataWorkerError(f"a data worker cannot hand over a batch: {said}")
            if explained is None:
                raise
            raise explained from error
