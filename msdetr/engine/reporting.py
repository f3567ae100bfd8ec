"""What a training run prints: a progress bar on a terminal, plain lines elsewhere, a log file.

Everything goes to stderr; stdout stays free for data.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.text import Text

from msdetr.terminal import LiteralConsole, printable

logger = logging.getLogger("msdetr")
# Without it, Python would print errors that no log file takes to stderr a second time.
logger.addHandler(logging.NullHandler())

_FORMAT = "%(asctime)s %(levelname)s %(message)s"


@contextmanager
def logging_to(file: Path) -> Iterator[None]:
    """Append what the logger is told inside the ``with`` block to a file.

    Raises:
        OSError: The file cannot be opened.
    """
    handler = _LogFile(file, encoding="utf-8")
    handler.setFormatter(logging.Formatter(_FORMAT))
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()


@dataclass(frozen=True)
class StepLine:
    """Numbers of the step line.

    Attributes:
        epoch: Epoch under way, counted from 0.
        step_in_epoch: Finished steps of the epoch.
        loss: Loss of the step.
        parts: Weighted loss of every branch.
        lr: Learning rate of the first group.
        images_per_second: Over the last interval, all processes together.
        memory_mib: Peak memory.
        seconds_left: Estimate to the end of the run, evaluations not counted.
    """

    epoch: int
    step_in_epoch: int
    loss: float
    parts: Mapping[str, float]
    lr: float
    images_per_second: float
    memory_mib: float
    seconds_left: float

    def summary(self) -> str:
        """Format the numbers in one line, without the position."""
        parts = ", ".join(f"{name} {value:.3f}" for name, value in self.parts.items())
        left = time.strftime("%H:%M:%S", time.gmtime(self.seconds_left % 86400))
        days = f"{int(self.seconds_left // 86400)}d " if self.seconds_left >= 86400 else ""
        return (
            f"loss {self.loss:.3f} ({parts})  lr {self.lr:.2g}  "
            f"{self.images_per_second:.1f} images/s  {days}{left} left  {self.memory_mib:.0f} MiB"
        )


class TrainingReporter:
    """Shows the progress of a training run.

    Args:
        epochs: Epochs of the run.
        steps_per_epoch: Optimizer steps of an epoch.
        console: Where to print; stderr by default.
        log_file: Receives every line as well.
        quiet: Print nothing at all (processes other than the main one).
    """

    def __init__(
        self,
        *,
        epochs: int,
        steps_per_epoch: int,
        console: Console | None = None,
        log_file: Path | None = None,
        quiet: bool = False,
    ) -> None:
        self._epochs = epochs
        self._steps_per_epoch = steps_per_epoch
        self._console = console or LiteralConsole(stderr=True)
        self._log_file = log_file
        self._quiet = quiet
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    @contextmanager
    def running(self) -> Iterator[None]:
        """Open the log file and, on a terminal, the bar."""
        if self._quiet:
            yield
            return
        with nullcontext() if self._log_file is None else logging_to(self._log_file):
            try:
                if self._console.is_terminal:
                    with self._new_bar() as self._bar:
                        yield
                else:
                    yield
            finally:
                self._bar = self._task = None

    def say(self, text: str, level: int = logging.INFO) -> None:
        """Print one line, on the console and in the log file."""
        if self._quiet:
            return
        logger.log(level, text)
        self._show(text)

    def advance(self, step_in_epoch: int) -> None:
        """Move the bar; cheap, called after every step."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=step_in_epoch)

    def start_epoch(self, epoch: int, step_in_epoch: int) -> None:
        """Begin an epoch, possibly in its middle."""
        if self._bar is None:
            return
        if self._task is not None:
            self._bar.remove_task(self._task)
        title = f"epoch {epoch + 1}/{self._epochs}"
        self._task = self._bar.add_task(
            title, total=self._steps_per_epoch, completed=step_in_epoch, summary=""
        )

    def show_step(self, line: StepLine) -> None:
        """Show the numbers of a logged step."""
        if self._quiet:
            return
        summary = line.summary()
        place = f"epoch {line.epoch + 1}/{self._epochs}"
        text = f"{place}  step {line.step_in_epoch}/{self._steps_per_epoch}  {summary}"
        logger.info(text)
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, summary=summary)
        else:
            self._show(text)

    def _show(self, text: str) -> None:
        console = self._console if self._bar is None else self._bar.console
        console.print(Text(printable(text)), soft_wrap=True)

    def _new_bar(self) -> Progress:
        return Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[summary]}", markup=False),
            console=self._console,
        )


class _LogFile(logging.FileHandler):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Ignore a full disk: the console has every line, and other files will report it."""
