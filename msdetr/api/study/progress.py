"""Progress of a study that runs: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from msdetr.errors import counted
from msdetr.study.cell import Cell
from msdetr.terminal import LiteralConsole

_SECONDS_BETWEEN_LOOKS = 2.0
_SECONDS_BETWEEN_LINES = 60.0


class StudyProgress:
    """Says how far the cells of a study are; everything goes to stderr.

    Args:
        cells: All cells.
        num_epochs: Epochs of a cell, by arm.
        metric: What to show of finished cells.
    """

    def __init__(self, cells: Sequence[Cell], num_epochs: Mapping[str, int], metric: str) -> None:
        self._cells = {cell.name: cell for cell in cells}
        self._num_epochs = num_epochs
        self._metric = metric
        self._console = LiteralConsole(stderr=True)
        self._total = sum(num_epochs[cell.arm] for cell in cells)
        self._done = {cell.name: self._epochs_of(cell) for cell in cells}
        self._at_start = sum(self._done.values())
        self._ended = {cell.name for cell in cells if cell.is_trained and cell.is_analysed}
        self._bar: Progress | None = None
        self._started = self._looked = self._said = time.monotonic()

    @contextmanager
    def showing(self) -> Iterator[None]:
        """Show the bar, on a terminal, inside the ``with`` block."""
        if not self._console.is_terminal:
            yield
            return
        columns = (TextColumn("epochs"), BarColumn(), MofNCompleteColumn())
        with Progress(
            *columns, TextColumn("{task.fields[summary]}"), console=self._console, transient=True
        ) as bar:
            bar.add_task("", total=self._total, completed=self._at_start, summary="")
            self._bar = bar
            try:
                yield
            finally:
                self._bar = None

    def say(self, text: str) -> None:
        """Print a line."""
        console = self._console if self._bar is None else self._bar.console
        console.print(text, soft_wrap=True)

    def end(self, name: str) -> None:
        """Say that the job of a cell has ended, and how."""
        cell = self._cells[name]
        self._done[name] = self._epochs_of(cell)
        if cell.is_trained and cell.is_analysed:
            self._ended.add(name)
            self.say(f"{name}: finished{self._metric_of(cell)}; {self._summary()}")
        elif cell.error is not None:
            self.say(f"{name}: failed: {cell.error}")
        else:
            self.say(f"{name}: stopped after {self._done[name]} epochs")

    def look(self) -> None:
        """Bring the numbers up to date, every few seconds."""
        now = time.monotonic()
        if now - self._looked < _SECONDS_BETWEEN_LOOKS:
            return
        self._looked = now
        for name in self._cells.keys() - self._ended:
            self._done[name] = self._epochs_of(self._cells[name])
        if self._bar is not None:
            done = sum(self._done.values())
            self._bar.update(self._bar.task_ids[0], completed=done, summary=self._summary())
        elif now - self._said >= _SECONDS_BETWEEN_LINES:
            self._said = now
            self.say(self._summary())

    def _epochs_of(self, cell: Cell) -> int:
        return min(cell.num_epochs, self._num_epochs[cell.arm])

    def _metric_of(self, cell: Cell) -> str:
        value = cell.last_score(self._metric)
        return "" if value is None else f", {self._metric} {value:.3f}"

    def _summary(self) -> str:
        done = sum(self._done.values())
        parts = [
            f"{len(self._ended)} of {counted(len(self._cells), 'cell')}",
            f"{done} of {counted(self._total, 'epoch')}",
        ]
        fresh, left = done - self._at_start, self._total - done
        if fresh and left:
            seconds = (time.monotonic() - self._started) / fresh * left
            parts.append(f"about {format_seconds(seconds)} left")
        return ", ".join(parts)


def format_seconds(seconds: float) -> str:
    """Write a time in hours, minutes and seconds: ``1:02:03``."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
