"""Training runs in a table: the workflows behind ``msdetr runs``. Load no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich import box
from rich.console import Group
from rich.table import Table

from msdetr.errors import RunDirectoryError
from msdetr.recipe import Recipe, recipe_to_dict
from msdetr.recipe.differences import Difference, find_settings_that_differ, load_compared
from msdetr.recipe.dump import value_to_yaml
from msdetr.recipe.fields import list_fields
from msdetr.stored_runs.folder import find_runs, is_run
from msdetr.stored_runs.stored_run import StoredRun, read_run

RunOrder = Literal["ap", "name", "time", "epochs"]

_MAX_SHOWN = 6
_SCORES = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")


@dataclass(frozen=True)
class ListedRun:
    """A run and how its recipe differs from the reference.

    Attributes:
        name: Path of the run below the folder.
        run: What it left.
        differences: Fields with other values than the reference; None where one of the two
            recipes cannot be read.
    """

    name: str
    run: StoredRun
    differences: tuple[Difference, ...] | None

    @property
    def epochs(self) -> str:
        """Finished epochs of those to do."""
        recipe = self.run.recipe
        return f"{self.run.num_epochs}/{'?' if recipe is None else recipe.train.epochs}"

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        run = self.run
        return {
            "name": self.name,
            "path": str(run.path),
            "state": run.state,
            "epochs": run.num_epochs,
            "epochs_to_do": None if run.recipe is None else run.recipe.train.epochs,
            "best_ap": run.best_ap,
            "last_ap": run.last_ap,
            "cost": run.costs,
            "differences": None
            if self.differences is None
            else {d.key: {"reference": d.first, "run": d.second} for d in self.differences},
            "problems": list(run.problems),
        }


@dataclass(frozen=True)
class RunList:
    """The runs below a folder.

    Attributes:
        folder: The folder.
        runs: Sorted as asked for.
        reference: What the recipes are compared with; None where there is nothing to compare.
    """

    folder: Path
    runs: tuple[ListedRun, ...]
    reference: str | None

    @property
    def problems(self) -> list[str]:
        """What is damaged, one line each."""
        return [f"{one.run.path}: {problem}" for one in self.runs for problem in one.run.problems]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        runs = [run.to_dict() for run in self.runs]
        return {"folder": str(self.folder), "reference": self.reference, "runs": runs}

    def table(self) -> Group:
        """Return one row per run, and what its recipe changes, for the terminal."""
        changes = self._changes()
        return Group(self._overview(), *([] if changes is None else [changes]))

    def _overview(self) -> Table:
        table = Table(box=box.SIMPLE_HEAD)
        table.add_column("run", overflow="fold")
        table.add_column("state")
        for title in ("epochs", "best AP", "last AP", "training", "fields changed"):
            table.add_column(title, justify="right")
        for one in self.runs:
            run = one.run
            table.add_row(
                one.name,
                run.state,
                one.epochs,
                *(_points(ap) for ap in (run.best_ap, run.last_ap)),
                _duration(run.costs.get("train_seconds")),
                "?" if one.differences is None else str(len(one.differences)),
            )
        return table

    def _changes(self) -> Table | None:
        changed = [one for one in self.runs if one.differences]
        if not changed:
            return None
        table = Table("run", f"recipe where it differs from {self.reference}", box=box.SIMPLE_HEAD)
        for one in changed:
            table.add_row(one.name, _shown(one.differences or ()))
        return table


def list_runs(folder: Path, *, reference: str | None = None, order: RunOrder = "ap") -> RunList:
    """List the training runs below a folder.

    Args:
        folder: Where to look.
        reference: Recipe that theirs are compared with: a packaged name, a file or a run
            directory; by default that of the first run by name whose recipe can be read.
        order: "ap" and "time" and "epochs": highest first; "name".

    Raises:
        InvalidInputError: The folder holds no run, or the reference is no recipe.
    """
    runs = {path: read_run(path) for path in find_runs(folder)}
    if not runs:
        raise RunDirectoryError(str(folder), "holds no training run")
    named = [(_name(path, folder), run) for path, run in runs.items()]
    name, recipe = _choose_reference(named, reference)
    listed = [ListedRun(each, run, _differences(recipe, run.recipe)) for each, run in named]
    return RunList(folder, tuple(sorted(listed, key=lambda one: _rank(one, order))), name)


@dataclass(frozen=True)
class RunDetails:
    """One run in detail.

    Attributes:
        listed: The run, compared with the reference if there is one.
        reference: Name of the reference, or None.
    """

    listed: ListedRun
    reference: str | None

    @property
    def problems(self) -> list[str]:
        """What is damaged, one line each."""
        run = self.listed.run
        return [f"{run.path}: {problem}" for problem in run.problems]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        run = self.listed.run
        recipe = None if run.recipe is None else recipe_to_dict(run.recipe)
        evaluations = [
            {"epoch": int(row["epoch"]) + 1, **{key: row.get(key) for key in _SCORES}}
            for row in run.rows
            if "ap" in row
        ]
        return {
            **self.listed.to_dict(),
            "reference": self.reference,
            "evaluations": evaluations,
            "recipe": recipe,
        }

    def table(self) -> Group:
        """Return facts, evaluations and differences, for the terminal."""
        tables: list[Table] = [self._facts()]
        if self.listed.run.scores():
            tables.append(self._evaluations())
        if self.listed.differences:
            assert self.reference is not None
            tables.append(difference_table(self.listed.differences, self.reference, "run"))
        return Group(*tables)

    def _facts(self) -> Table:
        run = self.listed.run
        table = Table(box=None, show_header=False)
        table.add_column()
        table.add_column(overflow="fold")
        summary = run.recipe.description.strip().partition("\n")[0] if run.recipe else "-"
        rows = {"run": str(run.path), "recipe": summary, "state": run.state}
        rows |= {"epochs": self.listed.epochs}
        rows |= {"best AP": _points(run.best_ap), "last AP": _points(run.last_ap)}
        rows |= {
            "training": _duration(run.costs.get("train_seconds")),
            "evaluations": _duration(run.costs.get("evaluation_seconds")),
            "images seen": _amount(run.costs.get("images_seen")),
            "peak memory": _amount(run.costs.get("peak_memory_mib"), " MiB"),
        }
        for name, value in rows.items():
            table.add_row(name, value)
        return table

    def _evaluations(self) -> Table:
        table = Table(box=box.SIMPLE_HEAD)
        for title in ("epoch", "AP", "AP50", "AP75", "small", "medium", "large"):
            table.add_column(title, justify="right")
        for entry in self.to_dict()["evaluations"]:
            table.add_row(str(entry["epoch"]), *(_points(entry[key]) for key in _SCORES))
        return table


def show_run(path: Path, *, reference: str | None = None) -> RunDetails:
    """Say what a training run did.

    Args:
        path: Run directory.
        reference: Recipe to compare its own with, as for :func:`list_runs`; None for none.

    Raises:
        InvalidInputError: It holds no run, or the reference is no recipe.
    """
    if not is_run(path):
        raise RunDirectoryError(str(path), "holds no training run")
    run = read_run(path)
    differences = None if reference is None else _differences(load_compared(reference), run.recipe)
    return RunDetails(ListedRun(path.name, run, differences), reference)


@dataclass(frozen=True)
class RunDifferences:
    """The fields in which the recipes of several runs differ.

    Attributes:
        runs: The runs, by name.
        values: Value of every run by key; keys in the order of the schema. A run whose recipe
            cannot be read has none.
    """

    runs: RunList
    values: dict[str, dict[str, Any]]

    @property
    def problems(self) -> list[str]:
        """What is damaged, one line each."""
        return self.runs.problems

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        aps = {one.name: one.run.best_ap for one in self.runs.runs}
        return {"folder": str(self.runs.folder), "best_ap": aps, "fields": self.values}

    def table(self) -> Table:
        """Return one row per field and value, with the runs that have it."""
        table = Table(box=box.SIMPLE_HEAD)
        for title in ("field", "value", "runs (best AP)"):
            table.add_column(title, overflow="fold")
        aps = {one.name: _points(one.run.best_ap) for one in self.runs.runs}
        for key, by_run in self.values.items():
            holders: dict[str, list[str]] = {}
            for name, value in by_run.items():
                holders.setdefault(value_to_yaml(value), []).append(f"{name} ({aps[name]})")
            for position, (value, names) in enumerate(holders.items()):
                table.add_row("" if position else key, value, ", ".join(names))
        return table


def diff_runs(folder: Path) -> RunDifferences:
    """Find the fields in which the recipes of the runs below a folder differ.

    Args:
        folder: Where to look.

    Raises:
        RunDirectoryError: It holds no run.
    """
    runs = list_runs(folder, order="name")
    order = {field.key: position for position, field in enumerate(list_fields())}
    found = {d.key for one in runs.runs for d in one.differences or ()}
    keys = sorted(found, key=lambda key: (order.get(key, len(order)), key))
    recipes = {one.name: one.run.recipe for one in runs.runs if one.run.recipe is not None}
    plain = {name: recipe_to_dict(recipe) for name, recipe in recipes.items()}
    values = {key: {name: _at(tree, key) for name, tree in plain.items()} for key in keys}
    return RunDifferences(runs, values)


def difference_table(differences: Sequence[Difference], first: str, second: str) -> Table:
    """Return one row per field that differs, for the terminal.

    Args:
        differences: The fields.
        first: What the first recipe is called.
        second: What the second recipe is called.
    """
    table = Table(box=box.SIMPLE_HEAD)
    for title in ("field", first, second):
        table.add_column(title, overflow="fold")
    for found in differences:
        table.add_row(found.key, value_to_yaml(found.first), value_to_yaml(found.second))
    return table


def _choose_reference(
    named: Sequence[tuple[str, StoredRun]], reference: str | None
) -> tuple[str | None, Recipe | None]:
    if reference is not None:
        return reference, load_compared(reference)
    known = ((name, run.recipe) for name, run in named if run.recipe is not None)
    return next(known, (None, None))


def _differences(first: Recipe | None, second: Recipe | None) -> tuple[Difference, ...] | None:
    if first is None or second is None:
        return None
    return tuple(find_settings_that_differ(first, second))


def _rank(one: ListedRun, order: RunOrder) -> tuple[float, str]:
    run = one.run
    values = {
        "ap": run.best_ap,
        "time": run.costs.get("train_seconds"),
        "epochs": float(run.num_epochs),
        "name": 0.0,
    }
    value = values[order]
    return (float("inf") if value is None else -value), one.name


def _name(path: Path, folder: Path) -> str:
    return path.name if path == folder else str(path.relative_to(folder))


def _at(tree: dict[str, Any], key: str) -> Any:  # noqa: ANN401 - any value of a recipe
    value: Any = tree
    for name in key.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _shown(differences: Sequence[Difference]) -> str:
    shown = [f"{d.key}={value_to_yaml(d.second)}" for d in differences[:_MAX_SHOWN]]
    more = len(differences) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def _points(ap: float | None) -> str:
    return "-" if ap is None else f"{100 * ap:.1f}"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"


def _amount(number: float | None, unit: str = "") -> str:
    return "-" if number is None else f"{number:,.0f}{unit}"
