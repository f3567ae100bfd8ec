"""One training run as its directory tells it, whole or damaged."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from msdetr.errors import RecipeError
from msdetr.recipe import Recipe, load_recipe
from msdetr.stored_runs.checkpoint_info import (
    CHECKPOINT_FILE,
    LAST_CHECKPOINT,
    epochs_of,
    is_over,
    read_last_checkpoint,
)

RunState = Literal["finished", "unfinished", "diverged", "damaged"]

RECIPE_FILE = "recipe.yaml"
METRICS_FILE = "metrics.jsonl"
FINAL_METRICS = Path("evaluation", "metrics.json")
DIVERGED = "diverged"
AP = "ap"


@dataclass(frozen=True)
class StoredRun:
    """A training run, as far as its files can be read.

    Attributes:
        path: Run directory.
        recipe: The resolved recipe; None where it cannot be read.
        info: What the last checkpoint says of itself; None where there is none.
        rows: Logged rows of finished epochs.
        final: Content of ``evaluation/metrics.json``; empty without an evaluation.
        problems: What is damaged, one line each, with the name of the file.
    """

    path: Path
    recipe: Recipe | None
    info: dict[str, Any] | None
    rows: tuple[dict[str, Any], ...]
    final: dict[str, Any]
    problems: tuple[str, ...]

    @property
    def state(self) -> RunState:
        """How the run stands."""
        if self.problems:
            return "damaged"
        if self.info is not None and is_over(self.info):
            return "finished"
        return "diverged" if (self.path / DIVERGED).is_dir() else "unfinished"

    @property
    def num_epochs(self) -> int:
        """Finished epochs, as far as they are saved or logged."""
        logged = len(self.rows) and int(self.rows[-1]["epoch"]) + 1
        return max(logged, epochs_of(self.info or {}))

    @property
    def last_ap(self) -> float | None:
        """AP of the last evaluation, in 0..1."""
        scored = [ap for _, ap in self.scores()]
        return scored[-1] if scored else _number(self.final.get(AP))

    @property
    def best_ap(self) -> float | None:
        """Highest AP of any evaluation, in 0..1."""
        known = [ap for _, ap in self.scores() if ap is not None]
        return max(known, default=self.last_ap)

    @property
    def costs(self) -> dict[str, float]:
        """What the run cost so far: seconds, images, memory, operations; numbers alone."""
        logged = [row["cost"] for row in self.rows if isinstance(row.get("cost"), dict)]
        saved = (self.info or {}).get("costs")
        found = logged[-1] if logged else saved if isinstance(saved, dict) else {}
        numbers = {key: _number(value) for key, value in found.items()}
        return {key: value for key, value in numbers.items() if value is not None}

    def scores(self) -> list[tuple[int, float | None]]:
        """List epoch, counted from 1, and AP of every logged evaluation."""
        return [(int(row["epoch"]) + 1, _number(row[AP])) for row in self.rows if AP in row]


def read_run(path: Path) -> StoredRun:
    """Read what a run left; whatever is damaged is named in the result.

    Args:
        path: Run directory.
    """
    recipe, problems = _read_recipe(path / RECIPE_FILE)
    rows, broken = _read_rows(path / METRICS_FILE)
    final, odd = _read_object(path / FINAL_METRICS)
    info = read_last_checkpoint(path)
    if info is None and (path / LAST_CHECKPOINT).is_dir():
        odd = [*odd, f"{LAST_CHECKPOINT / CHECKPOINT_FILE}: is missing or damaged"]
    return StoredRun(path, recipe, info, tuple(rows), final, (*problems, *broken, *odd))


def _read_recipe(file: Path) -> tuple[Recipe | None, list[str]]:
    try:
        return load_recipe(file), []
    except RecipeError as error:
        if not file.exists():
            return None, [f"{file.name}: is missing"]
        found = [(p.where, " ".join(p.message.split())) for p in error.problems]
        return None, [": ".join(filter(None, (file.name, *parts))) for parts in found]


def _read_rows(file: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """Read the rows of epochs; a last line that a crash cut short is no damage."""
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return [], []
    except OSError as error:
        return [], [f"{file.name}: cannot be read: {error.strerror}"]
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        row = _parse(line)
        if row is None:
            is_cut = number == len(lines)
            return rows, [] if is_cut else [f"{file.name}: line {number}: expected a JSON object"]
        if row.get("kind") == "epoch":
            if not isinstance(row.get("epoch"), int):
                return rows, [f"{file.name}: line {number}: has no epoch"]
            rows.append(row)
    return rows, []


def _read_object(file: Path) -> tuple[dict[str, Any], list[str]]:
    try:
        found = _parse(file.read_text(encoding="utf-8", errors="replace"))
    except FileNotFoundError:
        return {}, []
    except OSError as error:
        return {}, [f"{file.name}: cannot be read: {error.strerror}"]
    return ({}, [f"{FINAL_METRICS}: expected a JSON object"]) if found is None else (found, [])


def _parse(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _number(value: object) -> float | None:
    return None if isinstance(value, bool) or not isinstance(value, int | float) else float(value)
