"""What a study will need before it is run: ``msdetr study run --dry-run``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from msdetr.api.dry_run import dry_run
from msdetr.api.study.progress import format_seconds
from msdetr.api.study.run import Workers
from msdetr.errors import counted
from msdetr.recipe import Recipe
from msdetr.study.cell import Cell
from msdetr.study.design import load_design, resolve_arms
from msdetr.study.folder import StudyFolder


@dataclass(frozen=True)
class ArmEstimate:
    """What the cells of an arm will need.

    Attributes:
        arm: Name of the arm.
        num_cells: Cells that are not finished.
        seconds: Training time of each.
        memory_mib: Memory of each, in MiB.
        is_measured: Whether the time is that of finished cells, not an estimate.
    """

    arm: str
    num_cells: int
    seconds: float
    memory_mib: float
    is_measured: bool


@dataclass(frozen=True)
class StudyEstimate:
    """What a study will need; prints itself with rich.

    Attributes:
        num_cells: Cells of the study.
        arms: What the cells of every arm need.
        num_workers: Cells at the same time.
        available_mib: Memory that was free for them, in MiB.
    """

    num_cells: int
    arms: tuple[ArmEstimate, ...]
    num_workers: int
    available_mib: float

    @property
    def num_to_do(self) -> int:
        """Cells that are not finished."""
        return sum(arm.num_cells for arm in self.arms)

    @property
    def seconds(self) -> float:
        """Training time of all cells that are not finished, one after the other."""
        return sum(arm.num_cells * arm.seconds for arm in self.arms)

    @property
    def memory_mib(self) -> float:
        """Memory of the cells that run at the same time, the largest ones together."""
        each = sorted(arm.memory_mib for arm in self.arms for _ in range(arm.num_cells))
        return sum(each[-self.num_workers :])

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON values."""
        return {
            "num_cells": self.num_cells,
            "num_to_do": self.num_to_do,
            "num_workers": self.num_workers,
            "seconds": self.seconds,
            "seconds_with_workers": self.seconds / self.num_workers,
            "memory_mib": self.memory_mib,
            "available_mib": self.available_mib,
            "arms": [asdict(arm) for arm in self.arms],
        }

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Print the table and the totals."""
        titles = ("arm", "cells to do", "time of each", "memory of each")
        table = Table(*titles, box=box.SIMPLE_HEAD)
        for arm in self.arms:
            about = "" if arm.is_measured else "at most "
            time = f"{about}{format_seconds(arm.seconds)}"
            table.add_row(arm.arm, str(arm.num_cells), time, f"{arm.memory_mib:.0f} MiB")
        yield table
        yield Text(
            f"{self.num_to_do} of {counted(self.num_cells, 'cell')} to do: "
            f"{format_seconds(self.seconds)} of training, "
            f"{format_seconds(self.seconds / self.num_workers)} with {self.num_workers} "
            "at the same time; evaluations not counted"
        )
        yield Text(f"memory: {self.memory_mib:.0f} MiB of {self.available_mib:.0f} MiB free")


def estimate_study(file: Path, *, output: Path, workers: Workers) -> StudyEstimate:
    """Check a study and estimate what the cells that are not finished will need.

    Every arm's model is built and run on two small batches; nothing is written.

    Args:
        file: The study's design.
        output: Its folder; need not exist.
        workers: What would run the cells.

    Raises:
        InvalidInputError: The design is not valid, or not that of the study in the folder.
    """
    design = load_design(file)
    recipes = resolve_arms(design, file)
    folder = StudyFolder(output)
    folder.check(file, design, recipes)
    cells = folder.cells_of(design)
    estimates, available = [], 0.0
    for name, recipe in recipes.items():
        estimate, available = _estimate_arm(
            [cell for cell in cells if cell.arm == name], recipe, workers
        )
        estimates.append(estimate)
    number = workers.number or (len(workers.slots()) if workers.executor == "local" else len(cells))
    return StudyEstimate(len(cells), tuple(estimates), max(1, min(number, len(cells))), available)


def _estimate_arm(
    cells: Sequence[Cell], recipe: Recipe, workers: Workers
) -> tuple[ArmEstimate, float]:
    report = dry_run(recipe, device=workers.device)
    measured = [cell.train_seconds for cell in cells if cell.is_trained]
    known = [seconds for seconds in measured if seconds is not None]
    guess = report.seconds_per_step * report.steps_per_epoch * report.num_epochs
    estimate = ArmEstimate(
        arm=cells[0].arm,
        num_cells=sum(not cell.is_trained for cell in cells),
        seconds=sum(known) / len(known) if known else guess,
        memory_mib=report.memory_mib * workers.processes,
        is_measured=bool(known),
    )
    return estimate, report.available_mib
