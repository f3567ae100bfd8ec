"""One cell as a job: runs the cell's process, stops it when asked, and knows why it failed.

A job is what an executor pickles and runs, on this machine or on a cluster. It imports no torch:
as many of them wait as cells are trained at the same time.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from msdetr.api.study.cell_process import CellOrder
from msdetr.files import replace_text
from msdetr.process_lock import HeldError, hold, is_held, note_holder, read_holder
from msdetr.study.cell import Cell

if TYPE_CHECKING:
    from submitit.helpers import DelayedSubmission

_STOPPED = {128 + signal.SIGINT, 128 + signal.SIGTERM, -signal.SIGINT, -signal.SIGTERM}
_SECONDS_BETWEEN_LOOKS = 0.5
# What the last holder of a lock may take to save its state.
_PATIENCE_SECONDS = 60.0


@dataclass(frozen=True)
class StudyRun:
    """The run of a study that a job belongs to.

    Attributes:
        name: Tells it from other runs of the same study.
        stop_file: Present once the run asks its jobs to stop.
        lock_file: Held by the run's process while it lives; None where jobs outlive it.
    """

    name: str
    stop_file: Path
    lock_file: Path | None

    @property
    def wants_stop(self) -> bool:
        """Whether jobs must stop: they were asked to, or nobody looks after them any more."""
        return self.stop_file.exists() or not self._is_alive()

    def _is_alive(self) -> bool:
        if self.lock_file is None:
            return True
        holder = read_holder(self.lock_file)
        return holder is not None and holder.run == self.name and is_held(self.lock_file)


@dataclass
class CellJob:
    """A cell to train and analyse.

    Attributes:
        cell: The cell; its paths are absolute.
        run: The run of the study.
        device: "auto", "cpu", "cuda" or "cuda:N".
        environment: Variables of the cell's process, beside the job's own.
        processes: How many processes train the cell.
    """

    cell: Cell
    run: StudyRun
    device: str
    environment: Mapping[str, str]
    processes: int = 1
    _child: subprocess.Popen[bytes] | None = field(default=None, init=False, repr=False)

    def __call__(self) -> None:
        """Run the cell's process to its end; failures are left in the cell's error file."""
        self.cell.error_file.unlink(missing_ok=True)
        try:
            with hold(self.cell.lock_file, wait_seconds=_PATIENCE_SECONDS) as descriptor:
                code = self._run_process(descriptor)
        except HeldError as error:
            self._note(f"is being trained by {error} already")
        except OSError as error:
            self._note(f"cannot be run: {error}")
        else:
            if code not in {0, *_STOPPED} and self.cell.error is None:
                self._note(_describe(code))

    def checkpoint(self) -> DelayedSubmission:
        """Save the state before the cluster takes the machine away; the job is queued again."""
        from submitit.helpers import DelayedSubmission  # noqa: PLC0415 - of an extra

        if self._child is not None:
            self._child.send_signal(signal.SIGTERM)
            self._child.wait()
        return DelayedSubmission(replace(self))

    def _run_process(self, descriptor: int) -> int:
        cell = self.cell
        order = CellOrder(
            recipe=str(cell.recipe_file),
            output=str(cell.path),
            device=self.device,
            error_file=str(cell.error_file),
            parent=os.getpid(),
            processes=self.processes,
        )
        with cell.output_file.open("ab") as output:
            child = self._child = subprocess.Popen(
                order.command(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self.environment},
                pass_fds=[descriptor],
            )
        note_holder(descriptor, child.pid, self.run.name)
        asked = False
        while True:
            try:
                code = child.wait(_SECONDS_BETWEEN_LOOKS)
                # One that crashes while it stops is stopped: its last checkpoint counts.
                return -signal.SIGTERM if asked and code < 0 else code
            except subprocess.TimeoutExpired:
                if not asked and self.run.wants_stop:
                    child.send_signal(signal.SIGTERM)
                    asked = True

    def _note(self, error: str) -> None:
        replace_text(self.cell.error_file, error + "\n")


def _describe(code: int) -> str:
    if code == -signal.SIGKILL:
        return "its process was killed by SIGKILL; out of memory?"
    if code < 0:
        return f"its process was killed by {signal.Signals(-code).name}"
    return f"its process ended with exit code {code}"
