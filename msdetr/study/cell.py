"""One cell of a study: an arm trained with a seed, in an ordinary run directory."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from msdetr.process_lock import is_held
from msdetr.stored_runs.checkpoint_info import is_over, read_last_checkpoint

CellState = Literal["missing", "running", "interrupted", "finished", "failed"]

RECIPE_FILE = "recipe.yaml"
METRICS_FILE = "metrics.jsonl"
ANALYSIS_FOLDER = "analysis"


@dataclass(frozen=True)
class Cell:
    """An arm with a seed.

    Attributes:
        arm: Name of the arm.
        seed: Seed of the training run.
        path: Run directory; need not exist.
        jobs: Folder of what running the cell leaves beside it: lock, error, output.
    """

    arm: str
    seed: int
    path: Path
    jobs: Path

    @property
    def name(self) -> str:
        """The cell in messages: ``mixed/seed_42``."""
        return f"{self.arm}/{self.path.name}"

    @property
    def lock_file(self) -> Path:
        """Held by the process that trains the cell; says which one it is."""
        return self.jobs / f"{self.path.name}.lock"

    @property
    def error_file(self) -> Path:
        """Why the last attempt failed."""
        return self.jobs / f"{self.path.name}.error"

    @property
    def output_file(self) -> Path:
        """What the processes of the cell printed."""
        return self.jobs / f"{self.path.name}.log"

    @property
    def recipe_file(self) -> Path:
        """The recipe that the cell is started with."""
        return self.jobs / f"{self.path.name}.yaml"

    @property
    def analysis(self) -> Path:
        """Folder of what was computed after the training; present only when complete."""
        return self.path / ANALYSIS_FOLDER

    @property
    def state(self) -> CellState:
        """How far the cell is.

        ``finished`` means that the training run is over, whoever started it; the analysis may be
        missing or under way.
        """
        if self.is_trained:
            return "finished"
        if is_held(self.lock_file):
            return "running"
        if self.error is not None:
            return "failed"
        return "interrupted" if (self.path / RECIPE_FILE).is_file() else "missing"

    @property
    def error(self) -> str | None:
        """Why the last attempt failed, in one line; None if it did not."""
        try:
            return self.error_file.read_text(encoding="utf-8").strip() or None
        except OSError:
            return None

    @property
    def is_trained(self) -> bool:
        """Whether the last epoch is trained, evaluated and saved, or the run's time was spent."""
        info = read_last_checkpoint(self.path)
        return info is not None and is_over(info)

    @property
    def is_analysed(self) -> bool:
        """Whether everything is there that the report needs."""
        return self.analysis.is_dir()

    @property
    def num_epochs(self) -> int:
        """Finished epochs, as far as they are logged."""
        return max((int(row["epoch"]) + 1 for row in self.epoch_rows()), default=0)

    @property
    def train_seconds(self) -> float | None:
        """Seconds of training, as far as they are logged; None where they are not."""
        costs = [row["cost"] for row in self.epoch_rows() if isinstance(row.get("cost"), dict)]
        seconds = costs[-1].get("train_seconds") if costs else None
        return float(seconds) if isinstance(seconds, int | float) else None

    def last_score(self, metric: str) -> float | None:
        """Return a metric of the last evaluation; None before the first, or if undefined."""
        scored = [row[metric] for row in self.epoch_rows() if metric in row]
        return None if not scored or scored[-1] is None else float(scored[-1])

    def epoch_rows(self) -> list[dict[str, Any]]:
        """Read the rows of epochs of ``metrics.jsonl``; a line cut short ends them."""
        try:
            text = (self.path / METRICS_FILE).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return []
        rows = []
        for line in text.splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                break
            if row.get("kind") == "epoch":
                rows.append(row)
        return rows
