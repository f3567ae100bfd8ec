"""What goes wrong around a training, in one line each."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from torch import distributed

from msdetr.engine.run_directory import RunDirectory
from msdetr.errors import MsdetrError

_LOST_WORKER = re.compile(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\) (.*?)\.? *(?:It is|$)")
_SOURCE_LINE = re.compile(r"^\[\S+:\d+\] ")
_LOST_CONNECTION = re.compile("gloo|NCCL|Connection closed by peer|Connection reset by peer")


class DataWorkerError(MsdetrError):
    """A process that reads images died."""


class LostProcessError(MsdetrError):
    """Another process of the run cannot be reached."""


def explain_failure(error: Exception, num_processes: int) -> Exception:
    """Turn an error that the run's surroundings caused into one line; others stay as they are.

    Args:
        error: What torch or the operating system raised.
        num_processes: Processes of the run.
    """
    if isinstance(error, MsdetrError):
        return error
    text = " ".join(str(error).split())
    worker = _LOST_WORKER.search(text)
    if worker is not None:
        return DataWorkerError(
            f"a data worker (process {worker[1]}) {worker[2]}; if the machine ran out of memory, "
            "continue with a smaller data.num_workers"
        )
    # A worker that dies while it hands over a batch closes the connection first.
    if isinstance(error, EOFError) or (num_processes == 1 and isinstance(error, ConnectionError)):
        return DataWorkerError(
            "a data worker died while it handed over a batch; if the machine ran out of memory, "
            "continue with a smaller data.num_workers"
        )
    if num_processes > 1 and _is_lost_connection(error, text):
        return LostProcessError(
            f"lost the connection to another of the {num_processes} processes; the launcher "
            f"names the one that failed first ({_SOURCE_LINE.sub('', text):.60})"
        )
    return error


@contextmanager
def writing_run(directory: RunDirectory) -> Iterator[None]:
    """Turn an operating system's refusal inside the ``with`` block into one line.

    Raises:
        MsdetrError: A file of the run could not be written.
    """
    try:
        yield
    except OSError as error:
        place = error.filename or directory.path
        raise MsdetrError(
            f"{place}: {error.strerror or error}; what was saved before is unchanged in "
            f"{directory.checkpoints}; continue with --resume"
        ) from error


def _is_lost_connection(error: Exception, text: str) -> bool:
    if isinstance(error, distributed.DistError):
        return True
    return isinstance(error, RuntimeError) and _LOST_CONNECTION.search(text) is not None
