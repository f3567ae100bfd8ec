"""A run's directory: what is where, and whether it may be used."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msdetr.engine.checkpoint import INFO_FILE, find_checkpoint
from msdetr.engine.metrics_file import read_rows
from msdetr.errors import RunDirectoryError
from msdetr.files import older_of, replace_text

RECIPE_FILE = "recipe.yaml"
ENVIRONMENT_FILE = "environment.json"
LOCK_FILE = "run.lock"

# What ``create`` makes before the recipe: all that a start cut short can leave.
_BEFORE_RECIPE = {
    *("checkpoints", LOCK_FILE),
    *(ENVIRONMENT_FILE, ENVIRONMENT_FILE + ".new", RECIPE_FILE + ".new"),
}
# What a run has made when it begins to train.
_BEFORE_STEP = {*_BEFORE_RECIPE, RECIPE_FILE, "train.log", "metrics.jsonl", "tensorboard"}


@dataclass(frozen=True)
class RunDirectory:
    """Places inside a run's directory.

    Attributes:
        path: The directory.
    """

    path: Path

    @property
    def recipe_file(self) -> Path:
        """The resolved recipe."""
        return self.path / RECIPE_FILE

    @property
    def environment_file(self) -> Path:
        """Versions and machine of the run's start."""
        return self.path / ENVIRONMENT_FILE

    @property
    def lock_file(self) -> Path:
        """Held by the process that trains here; says which one it is."""
        return self.path / LOCK_FILE

    @property
    def metrics_file(self) -> Path:
        """Rows of steps and epochs."""
        return self.path / "metrics.jsonl"

    @property
    def log_file(self) -> Path:
        """Everything the training run printed."""
        return self.path / "train.log"

    @property
    def checkpoints(self) -> Path:
        """Folder of ``last``, ``best`` and ``epoch_NNN``."""
        return self.path / "checkpoints"

    @property
    def last(self) -> Path:
        """The checkpoint to go on from."""
        return self.checkpoints / "last"

    @property
    def best(self) -> Path:
        """The checkpoint with the highest score."""
        return self.checkpoints / "best"

    @property
    def diverged(self) -> Path:
        """The checkpoint of the state before a step whose loss was not finite."""
        return self.path / "diverged"

    @property
    def evaluation(self) -> Path:
        """Folder of evaluation results."""
        return self.path / "evaluation"

    def epoch_checkpoint(self, num_epochs: int) -> Path:
        """Return the checkpoint kept after ``num_epochs`` finished epochs."""
        return self.checkpoints / f"epoch_{num_epochs:03d}"

    @property
    def holds_run(self) -> bool:
        """Whether a run was started here."""
        return self.recipe_file.is_file()

    def find_last(self) -> Path | None:
        """Return the last checkpoint, or None if the run has not saved one yet."""
        return find_checkpoint(self.last)

    def other_checkpoints(self) -> list[Path]:
        """List the checkpoints beside ``last``: the best, then the latest epochs."""
        epochs = sorted(self.checkpoints.glob("epoch_*"), reverse=True)
        found = (find_checkpoint(place) for place in (self.best, *epochs))
        return [place for place in found if place is not None]

    @property
    def is_untrained(self) -> bool:
        """Whether a run was started here that has finished no step, as far as anything tells."""
        return (
            self.holds_run
            and not self.other_checkpoints()
            and not read_rows(self.metrics_file)
            and self._last_step() == 0
        )

    def create(self, *, recipe_text: str, environment: Mapping[str, Any]) -> None:
        """Start a run here: make the directory and write its first files.

        Raises:
            RunDirectoryError: The directory is not empty or cannot be written.
        """
        self.check_free()
        try:
            # Of a run that has trained nothing.
            for place in (self.last, older_of(self.last)):
                shutil.rmtree(place, ignore_errors=True)
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            replace_text(self.environment_file, json.dumps(environment, indent=2) + "\n")
            # Last and whole, because its presence says that a run was started here.
            replace_text(self.recipe_file, recipe_text)
        except OSError as error:
            raise RunDirectoryError(
                str(self.path), f"cannot be written: {error.strerror}; give another `output`"
            ) from error

    def update_recipe(self, recipe_text: str) -> None:
        """Replace the recipe of a run that goes on with other fields.

        Raises:
            RunDirectoryError: The directory cannot be written.
        """
        try:
            replace_text(self.recipe_file, recipe_text)
        except OSError as error:
            raise RunDirectoryError(
                str(self.path), f"cannot be written: {error.strerror}"
            ) from error

    def check_free(self) -> None:
        """Refuse a directory that holds anything but what a run without any step left.

        Raises:
            RunDirectoryError: It is not empty, or not a directory.
        """
        if self.path.exists() and not self.path.is_dir():
            raise RunDirectoryError(str(self.path), "is a file; give another `output`")
        if self.path.is_dir() and not self._is_unused():
            raise RunDirectoryError(
                str(self.path),
                "is not empty; continue the run in it with `resume=True`, or give another `output`",
            )

    def check_writable(self) -> None:
        """Refuse a place that cannot be written to, before any work is done.

        Raises:
            RunDirectoryError: It is read-only, or belongs to somebody else.
        """
        existing = next(place for place in (self.path, *self.path.parents) if place.exists())
        if not os.access(existing, os.W_OK):
            raise RunDirectoryError(
                str(self.path),
                f"cannot be written: {existing} is read-only or needs other rights; give another "
                "`output`",
            )

    def _is_unused(self) -> bool:
        names = {entry.name for entry in self.path.iterdir()}
        if self.is_untrained:
            return names <= _BEFORE_STEP
        saved = self.checkpoints.is_dir() and any(self.checkpoints.iterdir())
        return names <= _BEFORE_RECIPE and not saved

    def _last_step(self) -> int | None:
        """Return the step of the last checkpoint, 0 without one; None if it does not say."""
        last = self.find_last()
        if last is None:
            return 0
        try:
            info = json.loads((last / INFO_FILE).read_text(encoding="utf-8"))
            return int(info["run_state"]["step"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None
