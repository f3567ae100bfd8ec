"""Where cells run: beside each other on this machine, or as a job array under SLURM."""

from __future__ import annotations

import logging
import shutil
import signal
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from submitit import Job, LocalExecutor, SlurmExecutor
from submitit.core.utils import FailedJobError, FailedSubmissionError

from msdetr.api.study.cell_job import CellJob
from msdetr.errors import MsdetrError, UsageError

logging.getLogger("submitit").setLevel(logging.ERROR)

_MINUTES_PER_DAY = 24 * 60
# Jobs on this machine have no time limit; the executor wants one.
_LOCAL_MINUTES = 10 * 365 * _MINUTES_PER_DAY
# How often a cluster may end a job at its time limit before the cell counts as failed.
_MAX_TIMEOUTS = 100


class Launcher(ABC):
    """Starts jobs and knows which have ended."""

    def __init__(self) -> None:
        self._running: dict[str, Job[None]] = {}

    @abstractmethod
    def launch(self, jobs: Sequence[CellJob]) -> None:
        """Take over all jobs; called once."""

    @abstractmethod
    def stop(self) -> None:
        """Start no further jobs; those that run stop themselves."""

    @property
    def is_busy(self) -> bool:
        """Whether there are jobs that have not ended."""
        return bool(self._running)

    def take_ended(self) -> list[str]:
        """Return the names of the cells whose jobs have ended since the last call."""
        ended = [name for name, job in self._running.items() if job.done()]
        for name in ended:
            del self._running[name]
        return ended


class LocalLauncher(Launcher):
    """Runs jobs in processes on this machine.

    Args:
        folder: Where the executor keeps its files.
        slots: One entry per job that may run at the same time: variables of its process.
    """

    def __init__(self, folder: Path, slots: Sequence[Mapping[str, str]]) -> None:
        super().__init__()
        self._executor = LocalExecutor(folder)
        self._executor.update_parameters(timeout_min=_LOCAL_MINUTES)
        self._waiting: deque[CellJob] = deque()
        self._free = deque(slots)
        self._taken: dict[str, Mapping[str, str]] = {}

    @property
    def is_busy(self) -> bool:
        """Whether there are jobs that have not ended."""
        return bool(self._running or self._waiting)

    def launch(self, jobs: Sequence[CellJob]) -> None:
        """Start as many jobs as there are slots, and the others as slots become free."""
        self._waiting.extend(jobs)
        self._fill()

    def stop(self) -> None:
        """Start no further jobs."""
        self._waiting.clear()

    def take_ended(self) -> list[str]:
        """Return the cells whose jobs have ended, and start others in their places."""
        ended = super().take_ended()
        self._free.extend(self._taken.pop(name) for name in ended)
        self._fill()
        return ended

    def _fill(self) -> None:
        while self._waiting and self._free:
            job, slot = self._waiting.popleft(), self._free.popleft()
            job = replace(job, environment={**job.environment, **slot})
            self._taken[job.cell.name] = slot
            with _keeping_interrupts():
                self._running[job.cell.name] = self._executor.submit(job)


class SlurmLauncher(Launcher):
    """Runs jobs as a SLURM array, which queues them again when it takes their machine away.

    Args:
        folder: Where the executor keeps its files; on a file system that all machines share.
        settings: Of the job, as the executor names them: partition, time, mem and so on.
        num_workers: Jobs at the same time at most; None for as many as SLURM lets run.

    Raises:
        UsageError: SLURM's commands are missing, or a setting is unknown.
    """

    def __init__(
        self, folder: Path, settings: Mapping[str, Any], *, num_workers: int | None
    ) -> None:
        super().__init__()
        check_slurm(settings)
        self._executor = SlurmExecutor(folder, max_num_timeout=_MAX_TIMEOUTS)
        limit = {} if num_workers is None else {"array_parallelism": num_workers}
        defaults = {"job_name": "msdetr", "time": _MINUTES_PER_DAY}
        self._executor.update_parameters(**{**defaults, **limit, **settings})

    def launch(self, jobs: Sequence[CellJob]) -> None:
        """Submit all jobs as one array.

        Raises:
            MsdetrError: SLURM refuses it.
        """
        try:
            with self._executor.batch():
                submitted = {job.cell.name: self._executor.submit(job) for job in jobs}
        except (FailedJobError, FailedSubmissionError) as error:
            last = str(error).strip().splitlines()[-1]
            raise MsdetrError(f"SLURM did not accept the jobs: {last}") from error
        self._running.update(submitted)

    def stop(self) -> None:
        """Cancel all jobs; SLURM sends them SIGTERM first."""
        for job in self._running.values():
            job.cancel(check=False)


def check_slurm(settings: Mapping[str, Any]) -> None:
    """Refuse SLURM where it is missing, and settings that it does not have.

    Raises:
        UsageError: As said.
    """
    for command in ("sbatch", "srun"):
        if shutil.which(command) is None:
            raise UsageError("`executor='slurm'`", f"{command} is not on the PATH of this machine")
    known = sorted(SlurmExecutor._valid_parameters())
    for name in settings:
        if name not in known:
            close = get_close_matches(name, known, n=1)
            hint = f"did you mean '{close[0]}'?" if close else f"expected {', '.join(known)}"
            raise UsageError("`slurm`", f"unknown setting '{name}'; {hint}")
    if not isinstance(settings.get("time", 1), int):
        raise UsageError("`slurm`", f"time must be whole minutes, got {settings['time']!r}")


@contextmanager
def _keeping_interrupts() -> Iterator[None]:
    """Start processes that a Ctrl-C in the terminal does not reach.

    They are asked to stop by the run of the study, so that they can save their state.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
