"""Plot training runs: the workflow behind ``msdetr plot``, and the end of every run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from msdetr.api.output import check_output, writing
from msdetr.drawing.figures import save_figure
from msdetr.engine.run_directory import RECIPE_FILE
from msdetr.errors import UsageError
from msdetr.recipe import load_recipe
from msdetr.run_report.curves import PlottedRun, TrainingFigure, draw_training_curves, labels_of
from msdetr.run_report.history import read_history

PLOTS = "plots"
_SUFFIXES = (".png", ".svg")


@dataclass(frozen=True)
class SavedFigure:
    """A figure in two formats.

    Attributes:
        title: Heading in a report.
        png: Its pixels.
        svg: Its lines.
    """

    title: str
    png: Path
    svg: Path


@dataclass(frozen=True)
class PlotResult:
    """What was drawn.

    Attributes:
        figures: Pictures.
        notes: What a reader should know of the values.
    """

    figures: tuple[SavedFigure, ...]
    notes: tuple[str, ...]

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file of every figure."""
        return tuple(file for figure in self.figures for file in (figure.png, figure.svg))


def plot_runs(runs: Sequence[Path], *, output: Path | None = None, layer: int = -1) -> PlotResult:
    """Draw losses, AP and learning rate of training runs, as PNG and SVG.

    Args:
        runs: Run directories with ``metrics.jsonl`` or a published ``log.txt``, or such files; at
            most eight.
        output: Directory of the pictures, which must not hold any of them yet; by default
            ``plots`` in the run, where older ones are replaced. Needed for several runs.
        layer: Decoder layer of the losses, counted from 0; -1 for the last one.

    Raises:
        InvalidInputError: A log is missing or malformed, or an argument is invalid.
    """
    if output is None and (len(runs) > 1 or not runs[0].is_dir()):
        raise UsageError("`output`", "is needed unless one run directory is given")
    plotted = read_runs(runs)
    figures = draw_training_curves(plotted, layer)
    if output is not None:
        check_output(output, [f"{figure.name}{s}" for figure in figures for s in _SUFFIXES])
    folder = output or runs[0] / PLOTS
    with writing(folder) as aside:
        saved = tuple(_save(figure, aside, folder) for figure in figures)
    notes = [f"{run.label}: {note}" for run in plotted for note in run.history.notes]
    notes += [f"{figure.name}: {figure.note}" for figure in figures if figure.note]
    if all(figure.name != "ap" for figure in figures):
        notes.append("no evaluation was logged, so there is no AP curve")
    return PlotResult(saved, tuple(notes))


def read_runs(paths: Sequence[Path]) -> list[PlottedRun]:
    """Read the logs of training runs, and the loss weights of their recipes if they have one.

    Raises:
        DataError: A log is missing or malformed.
        RecipeError: A run's recipe is invalid.
    """
    histories = [read_history(path) for path in paths]
    folders = [history.path.parent.resolve() for history in histories]
    labels = labels_of([folder.as_posix() for folder in folders])
    runs = []
    for label, history, folder in zip(labels, histories, folders, strict=True):
        recipe_file = folder / RECIPE_FILE
        if not recipe_file.is_file():
            runs.append(PlottedRun(label=label, history=history))
            continue
        loss = load_recipe(str(recipe_file)).supervision.one_to_one.loss
        runs.append(
            PlottedRun(
                label=label,
                history=history,
                box_weight=loss.box_weight,
                giou_weight=loss.giou_weight,
            )
        )
    return runs


def _save(figure: TrainingFigure, aside: Path, folder: Path) -> SavedFigure:
    names = [f"{figure.name}{suffix}" for suffix in _SUFFIXES]
    for name in names:
        save_figure(figure.figure, aside / name)
    png, svg = (folder / name for name in names)
    return SavedFigure(figure.title, png, svg)
