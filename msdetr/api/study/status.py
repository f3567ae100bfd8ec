"""How far a study is: the workflow behind ``msdetr study status``."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from msdetr.api.study.progress import format_seconds
from msdetr.study.cell import Cell, CellState
from msdetr.study.folder import read_study

_STYLES = {"finished": "green", "running": "cyan", "failed": "red", "interrupted": "yellow"}


@dataclass(frozen=True)
class CellStatus:
    """How far a cell is.

    Attributes:
        arm: Name of the arm.
        seed: Its seed.
        state: What it does.
        epoch: Finished epochs.
        num_epochs: Epochs of its recipe.
        value: The study's metric as of the last evaluation; None before the first.
        seconds: Training time of the epochs that it logged; None before the first.
        is_analysed: Whether everything is there that the report needs.
        error: Why the last attempt failed, if it did.
    """

    arm: str
    seed: int
    state: CellState
    epoch: int
    num_epochs: int
    value: float | None
    seconds: float | None
    is_analysed: bool
    error: str | None


@dataclass(frozen=True)
class StudyStatus:
    """How far the cells of a study are; prints itself with rich.

    Attributes:
        path: The study's folder.
        metric: What decides.
        cells: All cells, by arm and seed.
    """

    path: Path
    metric: str
    cells: tuple[CellStatus, ...]

    @property
    def is_over(self) -> bool:
        """Whether every cell is finished and analysed."""
        return all(cell.state == "finished" and cell.is_analysed for cell in self.cells)

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON values."""
        cells = [asdict(cell) for cell in self.cells]
        return {"path": str(self.path), "metric": self.metric, "cells": cells}

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Print the table, the errors and the counts."""
        table = Table("arm", "seed", "state", "epoch", self.metric, "training", box=box.SIMPLE_HEAD)
        for cell in self.cells:
            table.add_row(*_columns(cell))
        yield table
        for cell in self.cells:
            if cell.error is not None:
                yield Text(f"{cell.arm}/seed_{cell.seed}: {cell.error}")
        counts = Counter(cell.state for cell in self.cells)
        yield Text(", ".join(f"{number} {state}" for state, number in counts.items()))


def study_status(path: Path) -> StudyStatus:
    """Look at all cells of a study.

    Args:
        path: The study's folder.

    Raises:
        StudyError: There is no study, or cells of another one lie in its folder.
    """
    design, folder = read_study(path)
    recipes = folder.read_lock().recipes
    return StudyStatus(
        path=path,
        metric=design.metric,
        cells=tuple(
            _status_of(cell, design.metric, int(recipes[cell.arm]["train"]["epochs"]))
            for cell in folder.cells()
        ),
    )


def _status_of(cell: Cell, metric: str, num_epochs: int) -> CellStatus:
    return CellStatus(
        arm=cell.arm,
        seed=cell.seed,
        state=cell.state,
        epoch=cell.num_epochs,
        num_epochs=num_epochs,
        value=cell.last_score(metric),
        seconds=cell.train_seconds,
        is_analysed=cell.is_analysed,
        error=cell.error,
    )


def _columns(cell: CellStatus) -> tuple[str | Text, ...]:
    state = cell.state
    shown = "finished, to be analysed" if state == "finished" and not cell.is_analysed else state
    return (
        cell.arm,
        str(cell.seed),
        Text(shown, style=_STYLES.get(state, "")),
        f"{cell.epoch}/{cell.num_epochs}",
        "-" if cell.value is None else f"{cell.value:.3f}",
        "-" if cell.seconds is None else format_seconds(cell.seconds),
    )
