"""A study's folder: what is where, and whether it may be used."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from msdetr.errors import Problem, RecipeError, StudyError
from msdetr.files import replace_text
from msdetr.recipe import Recipe, load_recipe
from msdetr.recipe.differences import find_differences
from msdetr.study.cell import RECIPE_FILE, Cell
from msdetr.study.design import StudyDesign, cell_recipe
from msdetr.study.lock import Added, StudyLock, freeze, read_lock, refuse_changes

__all__ = ["Cell", "StudyFolder", "read_study"]

_RESULTS = Path("evaluation", "metrics.json")
# What there may be before a study begins: cells that were trained by hand, and what a start cut
# short left.
_BEFORE_START = {"cells", "jobs", "study.yaml", "study.yaml.new", "study.lock.json.new"}


@dataclass(frozen=True)
class StudyFolder:
    """Places inside a study's folder.

    Attributes:
        path: The folder.
    """

    path: Path

    @property
    def design_file(self) -> Path:
        """Copy of the design as it was run last; only arms and seeds were ever added to it."""
        return self.path / "study.yaml"

    @property
    def lock_file(self) -> Path:
        """What the study is frozen to."""
        return self.path / "study.lock.json"

    @property
    def jobs(self) -> Path:
        """Folder of what running the cells leaves: locks, errors, output."""
        return self.path / "jobs"

    @property
    def holds_study(self) -> bool:
        """Whether a study was begun here."""
        return self.lock_file.is_file()

    def cell(self, arm: str, seed: int) -> Path:
        """Return the run directory of a cell."""
        return self.path / "cells" / arm / f"seed_{seed}"

    def cells(self) -> list[Cell]:
        """List all cells of the study, by arm and seed.

        Raises:
            StudyError: There is no study here, or its lock file cannot be read.
        """
        return self.cells_of(self.read_lock().design)

    def cells_of(self, design: StudyDesign) -> list[Cell]:
        """List all cells of a design, by arm and seed."""
        return [
            Cell(arm, seed, self.cell(arm, seed), self.jobs / arm)
            for arm in design.arms
            for seed in design.seeds
        ]

    def read_lock(self) -> StudyLock:
        """Read what the study is frozen to.

        Raises:
            StudyError: There is no study here, or its lock file cannot be read.
        """
        if not self.holds_study:
            message = f"holds no study (no {self.lock_file.name}); begin one with msdetr study run"
            raise StudyError(str(self.path), message)
        return read_lock(self.lock_file)

    def begin(self, file: Path, design: StudyDesign, recipes: Mapping[str, Recipe]) -> StudyLock:
        """Freeze a study here, or go on with it.

        Args:
            file: The study's file.
            design: What it says.
            recipes: Resolved recipes of its arms.

        Returns:
            What the study is frozen to.

        Raises:
            StudyError: Another study was begun here, or the design has changed since, or there
                are other things in the folder.
        """
        before = self.check(file, design, recipes)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        added = Added(time=now, after_results=before is not None and self._has_results())
        lock = freeze(design, recipes, added, before)
        if lock != before:
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                replace_text(self.design_file, file.read_text(encoding="utf-8"))
                replace_text(self.lock_file, lock.to_json())
            except OSError as error:
                message = f"cannot be written: {error.strerror}; give another `output`"
                raise StudyError(str(self.path), message) from error
        return lock

    def check(
        self, file: Path, design: StudyDesign, recipes: Mapping[str, Recipe]
    ) -> StudyLock | None:
        """Check whether a study may begin or go on here; write nothing.

        Returns:
            What the study is frozen to so far; None if it has not begun.

        Raises:
            StudyError: As in ``begin``.
        """
        before = None
        if self.holds_study:
            before = read_lock(self.lock_file)
            refuse_changes(before, design, recipes, str(file))
        else:
            self._check_free()
        self.refuse_other_cells(design, recipes)
        return before

    def refuse_other_cells(self, design: StudyDesign, recipes: Mapping[str, Recipe]) -> None:
        """Refuse run directories below ``cells`` that do not belong to the study.

        Raises:
            StudyError: There are some; each is named.
        """
        cells = {cell.path: cell for cell in self.cells_of(design)}
        problems: list[Problem] = []
        for path in sorted((self.path / "cells").glob("*/*")):
            if path.is_dir() and path not in cells:
                name = str(path.relative_to(self.path))
                problems.append(Problem(name, "is no cell of this study; move it away"))
        for cell in cells.values():
            problems += _other_recipe(cell, recipes[cell.arm])
        if problems:
            raise StudyError(str(self.path), problems)

    def _check_free(self) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise StudyError(str(self.path), "is a file; give another `output`")
        if self.path.is_dir():
            others = sorted({entry.name for entry in self.path.iterdir()} - _BEFORE_START)
            if others:
                message = f"is not empty and holds no study, but {others[0]}; give another `output`"
                raise StudyError(str(self.path), message)

    def _has_results(self) -> bool:
        return any(cell_dir.is_file() for cell_dir in self.path.glob(f"cells/*/*/{_RESULTS}"))


def read_study(path: Path) -> tuple[StudyDesign, StudyFolder]:
    """Read a study that was begun, with everything that was added to it.

    Args:
        path: Its folder.

    Raises:
        StudyError: There is none, or cells of another study lie in the folder.
    """
    folder = StudyFolder(path)
    lock = folder.read_lock()
    folder.refuse_other_cells(lock.design, lock.load_recipes(str(folder.lock_file)))
    return lock.design, folder


def _other_recipe(cell: Cell, arm: Recipe) -> Iterator[Problem]:
    file = cell.path / RECIPE_FILE
    if not file.is_file():
        return
    name = f"cells/{cell.name}"
    try:
        found = load_recipe(file)
    except RecipeError as error:
        yield Problem(name, f"has a recipe that cannot be read: {error.problems[0].message}")
        return
    different = [
        each
        for each in find_differences(cell_recipe(arm, cell.seed), found)
        if each.key != "description"
    ]
    if different:
        first = different[0]
        yield Problem(
            name,
            f"belongs to another study: {first.key} must be {first.first!r}, is {first.second!r}; "
            "move it away",
        )
