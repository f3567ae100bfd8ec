"""What goes wrong around a training run, in one line each."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import distributed

from msdetr.engine.roll_call import RollCall
from msdetr.engine.run_directory import RunDirectory
from msdetr.engine.run_state import RunState
from msdetr.errors import DataWorkerError, InterruptedRunError, MsdetrError

_LOST_WORKER = re.compile(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\) (.*?)\.? *(?:It is|$)")
_SOURCE_LINE = re.compile(r"^\[\S+:\d+\] ")
_LOST_CONNECTION = re.compile("gloo|NCCL|Connection closed by peer|Connection reset by peer")


def explain_failure(error: Exception, roll_call: RollCall) -> Exception:
    """Turn an error that the run's surroundings caused into one line; others stay as they are.

    Args:
        error: What torch or the operating system raised.
        roll_call: Tells which process is gone.
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
    if isinstance(error, EOFError) or (
        roll_call.num_processes == 1 and isinstance(error, ConnectionError)
    ):
        return DataWorkerError(
            "a data worker died while it handed over a batch; if the machine ran out of memory, "
            "continue with a smaller data.num_workers"
        )
    if roll_call.num_processes > 1 and _is_lost_connection(error, text):
        sentence = _SOURCE_LINE.sub("", text).partition(". ")[0]
        return roll_call.explain_loss(f"{sentence:.80}")
    return error


def explain_stop(number: int, state: RunState, last: Path) -> InterruptedRunError:
    """Say where a signal stopped the run and how to go on.

    Args:
        number: The signal.
        state: What is saved.
        last: Where it is saved.
    """
    return InterruptedRunError(
        number,
        f"stopped by {signal.Signals(number).name} after step {state.step} (epoch "
        f"{state.epoch + 1}); the state is saved in {last}; continue with `resume=True`",
    )


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
            f"{directory.checkpoints}; continue with `resume=True`"
        ) from error


def _is_lost_connection(error: Exception, text: str) -> bool:
    if isinstance(error, distributed.DistError):
        return True
    return isinstance(error, RuntimeError) and _LOST_CONNECTION.search(text) is not None
