"""Several processes on this machine, started, watched and ended by torch's elastic launcher.

They get what torchrun would give them. What differs from torchrun is what a user sees: the exit
code is that of the process that failed first, its message is printed once, and neither the
launcher's log nor its traceback is.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any, Self
from uuid import uuid4

import psutil
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.elastic.rendezvous.api import RendezvousError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from msdetr.engine.device import count_cores
from msdetr.engine.signals import SIGNALS
from msdetr.errors import InterruptedRunError, MsdetrError
from msdetr.launched import Failure, launcher_variables

_LOOPBACK = "127.0.0.1"
# Torch's launcher sees to these itself: it ends the processes with them.
_NOT_PASSED_ON = (signal.SIGHUP, signal.SIGQUIT)
_STOPS = {128 + number for number in SIGNALS}
# The second Ctrl-C lets processes leave without saving; who sends a third means it.
_SIGNALS_BEFORE_KILL = 2


class ProcessFailedError(MsdetrError):
    """One of the processes that were started failed, and the others ended with it.

    Args:
        message: What it said, or how it ended.
        exit_code: With which the command is to end.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def launch(words: Sequence[str], num_processes: int) -> int:
    """Run a command of Python by several processes of this machine, to their end.

    SIGINT and SIGTERM are passed on to the processes, which end by themselves.

    Args:
        words: What follows ``python``, such as ``-m msdetr.cli train shapes_tiny``.
        num_processes: How many.

    Returns:
        The exit code, where there is nothing to say about it.

    Raises:
        ProcessFailedError: One of them failed.
        InterruptedRunError: A signal stopped them.
        MsdetrError: They cannot be started.
    """
    with (
        TemporaryDirectory(prefix="msdetr-processes-") as folder,
        _silent_launcher(),
        _environment(num_processes),
        _PassedOn() as signals,
    ):
        try:
            elastic_launch(_configure(folder, num_processes), sys.executable)(*words)
        except ChildFailedError as error:
            if signals.has_killed:
                return 128 + signals.numbers[0]
            asked = signals.numbers[0] if signals.numbers else None
            return _explain(error.failures, num_processes, asked=asked)
        except SignalException as error:
            return 128 + error.sigval
        except (RendezvousError, OSError) as error:
            raise MsdetrError(f"{num_processes} processes cannot be started: {error}") from error
    return 0


def _configure(folder: str, num_processes: int) -> LaunchConfig:
    return LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=num_processes,
        run_id=uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint=f"{_LOOPBACK}:0",  # any free port
        local_addr=_LOOPBACK,
        max_restarts=0,
        logs_specs=DefaultLogsSpecs(log_dir=folder),
        # What nohup lets this process ignore must not end it.
        signals_to_handle=",".join(
            number.name for number in _NOT_PASSED_ON if signal.getsignal(number) != signal.SIG_IGN
        ),
    )


@contextmanager
def _environment(num_processes: int) -> Iterator[None]:
    """Set what the processes find in their environment, unless the user has."""
    before = dict(os.environ)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, count_cores() // num_processes)))
    if "lo" in (name for _, name in socket.if_nameindex()):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    os.environ.update(launcher_variables())
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def _silent_launcher() -> Iterator[None]:
    """Keep what torch's launcher logs about its own work off stderr."""
    logger = logging.getLogger("torch.distributed")
    nowhere, before = logging.NullHandler(), (logger.handlers, logger.propagate)
    logger.handlers, logger.propagate = [nowhere], False
    try:
        yield
    finally:
        logger.handlers, logger.propagate = before


class _PassedOn:
    """Passes SIGINT and SIGTERM on to the processes while it is entered; the third one kills.

    Torch's launcher would wait for half a minute only. Outside the main thread, where Python
    allows no handlers, nothing is passed on.

    Attributes:
        numbers: The signals so far.
    """

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self._previous: dict[int, Any] = {}
        self._others: set[psutil.Process] = set()

    @property
    def has_killed(self) -> bool:
        """Whether the processes were killed."""
        return len(self.numbers) > _SIGNALS_BEFORE_KILL

    def __enter__(self) -> Self:
        self._others = set(psutil.Process().children())
        if threading.current_thread() is threading.main_thread():
            self._previous = {n: signal.getsignal(n) for n in _NOT_PASSED_ON}
            self._previous |= {n: signal.signal(n, self._pass_on) for n in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _pass_on(self, number: int, _: FrameType | None) -> None:
        processes = set(psutil.Process().children()) - self._others
        if not processes:
            sys.exit(128 + number)
        self.numbers.append(number)
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL if self.has_killed else number)


def _explain(
    failures: Mapping[int, ProcessFailure], num_processes: int, *, asked: int | None
) -> int:
    """Say what ended the processes: what else they say follows from it.

    Args:
        failures: How they ended, by rank.
        num_processes: How many there were.
        asked: The signal that asked them to stop, or None.

    Returns:
        The exit code, where there is nothing to say about it.
    """
    was_asked = asked is not None
    rank = min(failures, key=lambda rank: _precedence(failures[rank], asked=was_asked))
    first = failures[rank]
    code, failure = _code(first), Failure.of(first.error_file_data)
    if asked is not None and code in _STOPS:
        # Torch's launcher sends SIGTERM to those that leave after the first.
        code = 128 + asked
    message = failure.message if failure else _describe(first, rank, num_processes)
    if not message:
        return code
    if code in _STOPS:
        raise InterruptedRunError(code - 128, message)
    raise ProcessFailedError(message, code)


def _precedence(failed: ProcessFailure, *, asked: bool) -> tuple[int, float]:
    """Order failures: own ones, stops, those of another, and those that the launcher has ended."""
    failure = Failure.of(failed.error_file_data)
    timestamp = failure.timestamp if failure else float(failed.timestamp)
    if _code(failed) in _STOPS:
        return (1 if asked or failure else 3), timestamp
    return (2 if failure and failure.is_elsewhere else 0), timestamp


def _code(failed: ProcessFailure) -> int:
    """Return the exit code of a command for that of a process, which is negative for a signal."""
    if failed.exitcode >= 0:
        return failed.exitcode
    return 128 - failed.exitcode if -failed.exitcode in SIGNALS else 1


def _describe(failed: ProcessFailure, rank: int, num_processes: int) -> str:
    if _code(failed) in _STOPS:
        return ""
    if failed.exitcode >= 0:
        return f"process {rank} of {num_processes} ended with exit code {failed.exitcode}"
    guess = "; out of memory?" if failed.exitcode == -signal.SIGKILL else ""
    return f"process {rank} of {num_processes} was killed by {failed.signal_name()}{guess}"
