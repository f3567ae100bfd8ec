"""Run the cells of a study: the workflow behind ``msdetr study run``."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from msdetr.api.study.cell_job import CellJob, StudyRun
from msdetr.api.study.progress import StudyProgress
from msdetr.engine.device import count_cores
from msdetr.engine.signals import StopRequest
from msdetr.errors import InterruptedRunError, Problem, StudyError, UsageError
from msdetr.files import replace_text
from msdetr.process_lock import HeldError, hold, is_held, read_holder
from msdetr.recipe import Recipe, recipe_to_yaml
from msdetr.study.cell import Cell
from msdetr.study.design import cell_recipe, load_design, resolve_arms
from msdetr.study.folder import StudyFolder
from msdetr.study.lock import StudyLock
from msdetr.terminal import LiteralConsole

if TYPE_CHECKING:
    from msdetr.api.study.launchers import Launcher

_SECONDS_BETWEEN_LOOKS = 0.2
# What jobs of a run that was killed may take to notice it and to save their state.
_PATIENCE_SECONDS = 60.0

Executor = Literal["local", "slurm"]


@dataclass(frozen=True)
class StudyResult:
    """How the run of a study ended.

    Attributes:
        output: The study's folder.
        finished: Cells that are trained and analysed.
        failed: Why others are not, by cell.
    """

    output: Path
    finished: tuple[str, ...]
    failed: Mapping[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON values."""
        return {
            "output": str(self.output),
            "finished": list(self.finished),
            "failed": dict(self.failed),
        }


@dataclass(frozen=True)
class Workers:
    """What runs the cells.

    Attributes:
        number: Cells at the same time at most; None for what the machine has room for.
        executor: "local" or "slurm".
        slurm: Settings of SLURM jobs by name.
        threads: Threads of each process of a cell.
        device: "auto", "cpu", "cuda" or "cuda:N".
        processes: Processes that train each cell, on a GPU each or on ``threads`` cores each.
    """

    number: int | None = None
    executor: Executor = "local"
    slurm: Mapping[str, Any] | None = None
    threads: int = 1
    device: str = "auto"
    processes: int = 1

    @property
    def cores_per_cell(self) -> int:
        """Cores that a cell keeps busy on the CPU."""
        return self.threads * self.processes

    def slots(self) -> list[Mapping[str, str]]:
        """Return the variables of the cells that may run at the same time on this machine.

        Raises:
            UsageError: There are fewer GPUs than a cell has processes.
        """
        gpus = self._gpus()
        if gpus and len(gpus) < self.processes:
            message = f"{self.processes} processes need a GPU each, and there are {len(gpus)}"
            raise UsageError("`processes`", message)
        firsts = range(0, len(gpus) - self.processes + 1, self.processes)
        dealt = [",".join(gpus[first : first + self.processes]) for first in firsts]
        number = self.number or len(dealt) or max(1, count_cores() // self.cores_per_cell)
        return [
            {"CUDA_VISIBLE_DEVICES": dealt[index % len(dealt)]} if dealt else {}
            for index in range(number)
        ]

    def _gpus(self) -> list[str]:
        """List the GPUs to deal to cells, as CUDA_VISIBLE_DEVICES names them."""
        if self.device == "cpu" or not torch.cuda.is_available():
            return []
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        known = range(torch.cuda.device_count())
        names = visible.split(",") if visible else [str(index) for index in known]
        _, _, index = self.device.partition(":")
        return [names[int(index)]] if index else names[: len(known)]


def run_study(file: Path, *, output: Path, workers: Workers) -> StudyResult:
    """Train and analyse every cell of a study that is not finished yet.

    Args:
        file: The study's design.
        output: Its folder; a study that was begun there is gone on with.
        workers: What runs the cells.

    Returns:
        Which cells are finished, and which failed.

    Raises:
        InvalidInputError: The design is not valid, or not that of the study in the folder.
        InterruptedRunError: A signal stopped the run, after the cells had saved their states.
    """
    design = load_design(file)
    recipes = resolve_arms(design, file)
    folder = StudyFolder(output.absolute())
    _check_executor(workers)
    folder.check(file, design, recipes)
    with _alone(folder) as name:
        lock = folder.begin(file, design, recipes)
        cells = folder.cells_of(design)
        for line in [*design.warnings, *_describe_additions(lock)]:
            _say(f"note: {line}")
        _wait_for_strays(folder, cells)
        _run_cells(folder, cells, recipes, workers, name)
    return _result(output, cells)


def _run_cells(
    folder: StudyFolder,
    cells: Sequence[Cell],
    recipes: Mapping[str, Recipe],
    workers: Workers,
    name: str,
) -> None:
    files = folder.jobs / "submitit" / name
    is_local = workers.executor == "local"
    lock_file = _lock_file(folder) if is_local else None
    run = StudyRun(name, stop_file=files / "stop", lock_file=lock_file)
    design = folder.read_lock().design
    to_do = [cell for cell in cells if not (cell.is_trained and cell.is_analysed)]
    # What is trained is soon analysed; then seed by seed, as a comparison needs all arms of one.
    to_do.sort(key=lambda cell: (not cell.is_trained, design.seeds.index(cell.seed)))
    jobs = [_prepare(cell, recipes[cell.arm], run, workers) for cell in to_do]
    if not jobs:
        return
    files.mkdir(parents=True, exist_ok=True)
    epochs = {arm: recipe.train.epochs for arm, recipe in recipes.items()}
    progress = StudyProgress(cells, epochs, design.metric)
    launcher = _launcher(files, workers)
    with StopRequest() as stop, progress.showing():
        launcher.launch(jobs)
        _watch(launcher, run, progress, stop)


def _watch(launcher: Launcher, run: StudyRun, progress: StudyProgress, stop: StopRequest) -> None:
    """Wait for all jobs; pass a stop on to them."""
    asked = False
    while launcher.is_busy:
        if stop.number is not None and not asked:
            asked = True
            run.stop_file.touch()
            launcher.stop()
            progress.say("stopping: cells that run save their states")
        for name in launcher.take_ended():
            progress.end(name)
        progress.look()
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    if stop.number is not None:
        message = "stopped; the states are saved, and the same command goes on with the study"
        raise InterruptedRunError(stop.number, message)


def _prepare(cell: Cell, arm: Recipe, run: StudyRun, workers: Workers) -> CellJob:
    cell.jobs.mkdir(parents=True, exist_ok=True)
    cell.path.parent.mkdir(parents=True, exist_ok=True)
    replace_text(cell.recipe_file, recipe_to_yaml(cell_recipe(arm, cell.seed)))
    threads = str(workers.threads)
    # A cell on this machine sees its own GPUs only, whatever their numbers are here.
    device = "cuda" if workers.device.startswith("cuda") else workers.device
    return CellJob(
        cell=cell,
        run=run,
        device=device if workers.executor == "local" else workers.device,
        environment={"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads},
        processes=workers.processes,
    )


def _check_executor(workers: Workers) -> None:
    if find_spec("submitit") is None:
        raise UsageError("running a study", "needs submitit: pip install 'msdetr[study]'")
    if workers.executor == "slurm":
        from msdetr.api.study.launchers import check_slurm  # noqa: PLC0415 - of an extra

        check_slurm(workers.slurm or {})


def _launcher(files: Path, workers: Workers) -> Launcher:
    from msdetr.api.study.launchers import (  # noqa: PLC0415 - of an extra
        LocalLauncher,
        SlurmLauncher,
    )

    if workers.executor == "local":
        return LocalLauncher(files, workers.slots())
    settings = {"cpus_per_task": workers.cores_per_cell, **(workers.slurm or {})}
    return SlurmLauncher(files, settings, num_workers=workers.number)


@contextmanager
def _alone(folder: StudyFolder) -> Iterator[str]:
    """Be the only process that runs this study; yield a name for the run."""
    name = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{os.getpid()}"
    try:
        with hold(_lock_file(folder), run=name):
            yield name
    except HeldError as error:
        raise StudyError(str(folder.path), f"this study is being run by {error}") from None
    except OSError as error:
        message = f"cannot be used: {error.strerror or error}; give another `output`"
        raise StudyError(str(folder.path), message) from error


def _lock_file(folder: StudyFolder) -> Path:
    return folder.jobs / "run.lock"


def _wait_for_strays(folder: StudyFolder, cells: Sequence[Cell]) -> None:
    """Wait for processes of an earlier run that died without them.

    Raises:
        StudyError: They go on, as jobs of a cluster do.
    """
    deadline = time.monotonic() + _PATIENCE_SECONDS
    said = False
    while held := [cell for cell in cells if is_held(cell.lock_file)]:
        holders = [f"is being trained by {read_holder(cell.lock_file)}" for cell in held]
        if time.monotonic() > deadline:
            pairs = zip(held, holders, strict=True)
            raise StudyError(str(folder.path), [Problem(cell.name, text) for cell, text in pairs])
        if not said:
            _say(f"{held[0].name} {holders[0]}, left by an earlier run; waiting for it to stop")
            said = True
        time.sleep(_SECONDS_BETWEEN_LOOKS)


def _describe_additions(lock: StudyLock) -> Iterator[str]:
    arms = [name for name, added in lock.arms.items() if added.after_results]
    seeds = [str(seed) for seed, added in lock.seeds.items() if added.after_results]
    for kind, names in (("arms", arms), ("seeds", seeds)):
        if names:
            yield f"{kind} added after results had been seen: {', '.join(names)}"


def _result(output: Path, cells: Sequence[Cell]) -> StudyResult:
    finished = [cell for cell in cells if cell.is_trained and cell.is_analysed]
    others = [cell for cell in cells if cell not in finished]
    failed = {cell.name: cell.error or "ended before it was done; run again" for cell in others}
    return StudyResult(output, tuple(cell.name for cell in finished), failed)


def _say(text: str) -> None:
    LiteralConsole(stderr=True).say(text)
