"""The figures of one or several training runs: losses, AP, learning rate."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from matplotlib.figure import Figure

from msdetr.drawing.curves import Curve, Panel, Points, draw_curves
from msdetr.errors import UsageError
from msdetr.run_report.history import HistoryRow, RunHistory

MAX_LINES = 8
"""As many as colors and markers tell apart in one picture."""

_CLASS_LABEL = "class loss per target, unweighted"
_LINE_STYLES = ("with mixed supervision", "without")


@dataclass(frozen=True, kw_only=True)
class PlottedRun:
    """A training run to plot.

    Attributes:
        label: What the legend calls it.
        history: What it logged.
        box_weight: Weight of the L1 loss in the regression loss.
        giou_weight: Weight of the GIoU loss in it.
    """

    label: str
    history: RunHistory
    box_weight: float = 5.0
    giou_weight: float = 2.0


@dataclass(frozen=True, eq=False)
class TrainingFigure:
    """A figure of training runs.

    Attributes:
        name: Of its files, without the suffix.
        title: Heading in a report.
        figure: What is drawn.
        note: What it leaves out; may be empty.
    """

    name: str
    title: str
    figure: Figure
    note: str = ""


def draw_training_curves(runs: Sequence[PlottedRun], layer: int = -1) -> list[TrainingFigure]:
    """Draw every figure that the logs have values for.

    Args:
        runs: Training runs, one color each, at most ``MAX_LINES``.
        layer: Decoder layer of the losses, counted from 0; -1 for the last one.

    Returns:
        Losses, losses of query groups (for runs that train more than the primary queries), AP and
        learning rate; those without values are left out.

    Raises:
        UsageError: There are too many runs, one has no such layer, or they have no common axis.

    Source: Zhao et al., MS-DETR, CVPR 2024, figure 2 (loss curves of one-to-one supervision).
    """
    if len(runs) > MAX_LINES:
        message = f"at most {MAX_LINES} can be told apart in one picture, got {len(runs)}"
        raise UsageError("runs", message)
    axis = _Axis.common(runs)
    with_groups, note = _runs_with_groups(runs)
    planned = [
        ("losses", "Losses", _loss_panels(runs, axis, layer), ""),
        ("query_groups", "Losses of query groups", _group_panels(with_groups, axis, layer), note),
        ("ap", "AP", _score_panels(runs, axis), ""),
        ("learning_rate", "Learning rate", _rate_panels(runs, axis), ""),
    ]
    return [
        TrainingFigure(name, title, draw_curves(panels, axis.label, line_styles=_LINE_STYLES), note)
        for name, title, panels, note in planned
        if any(panel.curves for panel in panels)
    ]


Value = Callable[[HistoryRow], float | None]


@dataclass(frozen=True)
class _Axis:
    """Positions of rows: finished epochs, or optimizer steps where epochs are not known."""

    label: str
    by_epoch: bool

    @classmethod
    def common(cls, runs: Sequence[PlottedRun]) -> _Axis:
        if all(run.history.epochs for run in runs):
            return cls("epochs", by_epoch=True)
        without_steps = [run for run in runs if not run.history.steps]
        if without_steps:
            unfinished = next(run for run in runs if not run.history.epochs)
            raise UsageError(
                str(unfinished.history.path),
                "has no finished epoch, and the log of "
                f"{without_steps[0].label} has no steps: there is no common axis",
            )
        return cls("optimizer steps", by_epoch=False)

    def of_epochs(self, history: RunHistory, value: Value, *, means: bool = False) -> Points:
        """Return values of whole epochs, at their ends; means over an epoch in its middle."""
        length = 1.0 if self.by_epoch else history.steps_per_epoch or 1.0
        shift = 0.5 if means else 1.0
        return _points((length * (row.epoch + shift), value(row)) for row in history.epochs)

    def of_steps(self, history: RunHistory, value: Value) -> Points:
        """Return values of single steps."""
        length = (history.steps_per_epoch or 1.0) if self.by_epoch else 1.0
        return _points(((row.step or 0) / length, value(row)) for row in history.steps)


def _points(pairs: Iterable[tuple[float, float | None]]) -> Points:
    known = [(x, y) for x, y in pairs if y is not None]
    return Points([x for x, _ in known], [y for _, y in known])


def _loss_panels(runs: Sequence[PlottedRun], axis: _Axis, layer: int) -> list[Panel]:
    chosen = [_layer_of(run, layer) for run in runs]
    title = _title_of(layer)
    classification = [
        _loss_curve(run, number, axis, _term(f"one_to_one/class/{index}"))
        for number, (run, index) in enumerate(zip(runs, chosen, strict=True))
    ]
    regression = [
        _loss_curve(run, number, axis, _regression(run, index))
        for number, (run, index) in enumerate(zip(runs, chosen, strict=True))
    ]
    return [
        Panel(
            title=f"One-to-one classification loss ({title})",
            y_label=_CLASS_LABEL,
            curves=_with_values(classification),
            starts_at_zero=False,
        ),
        Panel(
            title=f"One-to-one regression loss ({title})",
            y_label=_regression_label(runs),
            curves=_with_values(regression),
            starts_at_zero=False,
        ),
    ]


def _runs_with_groups(runs: Sequence[PlottedRun]) -> tuple[list[PlottedRun], str]:
    """Return the runs whose query groups fit into one picture, and a note that names the others."""
    drawn: list[PlottedRun] = []
    left_out: list[str] = []
    num_lines = 0
    for run in (run for run in runs if run.history.query_groups):
        num_lines += 1 + len(run.history.query_groups)
        if drawn and num_lines > MAX_LINES:
            left_out.append(run.label)
        else:
            drawn.append(run)
    note = f"more than {MAX_LINES} lines, so it leaves out {', '.join(left_out)}"
    return drawn, note if left_out else ""


def _group_panels(with_groups: Sequence[PlottedRun], axis: _Axis, layer: int) -> list[Panel]:
    """Make panels of the losses of query groups, with the primary group's for comparison."""
    classification: list[Curve] = []
    regression: list[Curve] = []
    for run in with_groups:
        index = _layer_of(run, layer)
        for name, branches in {"primary": ("one_to_one",), **run.history.query_groups}.items():
            label = name if len(with_groups) == 1 else f"{run.label}: {name}"
            line = replace(run, label=label)
            number = len(classification)
            value = _mean_of([_term(f"{branch}/class/{index}") for branch in branches])
            classification.append(_loss_curve(line, number, axis, value))
            value = _mean_of([_regression(run, index, branch) for branch in branches])
            regression.append(_loss_curve(line, number, axis, value))
    title = _title_of(layer)
    return [
        Panel(
            title=f"Classification loss of query groups ({title})",
            y_label=_CLASS_LABEL,
            curves=_with_values(classification),
            starts_at_zero=False,
        ),
        Panel(
            title=f"Regression loss of query groups ({title})",
            y_label=_regression_label(with_groups),
            curves=_with_values(regression),
            starts_at_zero=False,
        ),
    ]


def _title_of(layer: int) -> str:
    return "last decoder layer" if layer < 0 else f"decoder layer {layer}"


def _mean_of(values: Sequence[Value]) -> Value:
    def mean(row: HistoryRow) -> float | None:
        known = [number for number in (value(row) for value in values) if number is not None]
        return sum(known) / len(known) if known else None

    return mean


def _score_panels(runs: Sequence[PlottedRun], axis: _Axis) -> list[Panel]:
    panels = []
    for key, title in {"ap": "AP", "ap50": "AP50"}.items():
        value = _percent(key)
        curves = [
            _curve(run, number, axis.of_epochs(run.history, value))
            for number, run in enumerate(runs)
        ]
        label = f"{title} on the validation images (%)"
        drawn = _with_values(curves)
        panels.append(Panel(title=title, y_label=label, curves=drawn, starts_at_zero=False))
    return [panel for panel in panels if panel.curves]


def _rate_panels(runs: Sequence[PlottedRun], axis: _Axis) -> list[Panel]:
    curves = []
    for number, run in enumerate(runs):
        steps = axis.of_steps(run.history, _rate)
        curves.append(_curve(run, number, steps if steps.x else axis.of_epochs(run.history, _rate)))
    label = "learning rate (no unit)"
    return [Panel(title="Learning rate", y_label=label, curves=_with_values(curves))]


def _loss_curve(run: PlottedRun, number: int, axis: _Axis, value: Value) -> Curve:
    epochs = axis.of_epochs(run.history, value, means=True)
    steps = axis.of_steps(run.history, value)
    if epochs.x:
        return _curve(run, number, epochs, steps if steps.x else None)
    return _curve(run, number, steps)


def _curve(run: PlottedRun, number: int, points: Points, detail: Points | None = None) -> Curve:
    return Curve(
        label=run.label,
        points=points,
        detail=detail,
        series=number,
        dashed=not run.history.mixed_supervision,
    )


def _with_values(curves: Sequence[Curve]) -> list[Curve]:
    return [curve for curve in curves if curve.points.x]


def _layer_of(run: PlottedRun, layer: int) -> int:
    count = run.history.num_layers
    if layer >= count:
        raise UsageError("`layer`", f"{run.label} has layers 0 to {count - 1}, got {layer}")
    return count - 1 if layer < 0 else layer


def _term(key: str) -> Value:
    return lambda row: row.terms.get(key)


def _percent(key: str) -> Value:
    def percent(row: HistoryRow) -> float | None:
        score = row.scores.get(key)
        return None if score is None else 100 * score

    return percent


def _rate(row: HistoryRow) -> float | None:
    return row.lr


def _regression(run: PlottedRun, layer: int, branch: str = "one_to_one") -> Value:
    def weighted(row: HistoryRow) -> float | None:
        box, giou = (row.terms.get(f"{branch}/{name}/{layer}") for name in ("box", "giou"))
        if box is None or giou is None:
            return None
        return run.box_weight * box + run.giou_weight * giou

    return weighted


def _regression_label(runs: Sequence[PlottedRun]) -> str:
    weights = dict.fromkeys((run.box_weight, run.giou_weight) for run in runs)
    terms = " or ".join(f"{box:g} L1 + {giou:g} (1 - GIoU)" for box, giou in weights)
    return f"{terms}, per target"


def labels_of(paths: Sequence[str]) -> list[str]:
    """Find the shortest endings of paths that tell them apart, for a legend.

    Args:
        paths: Paths with forward slashes, without the names of the logs.
    """
    parts = [path.strip("/").split("/") for path in paths]
    longest = max(map(len, parts), default=1)
    for length in range(1, longest + 1):
        endings = ["/".join(part[-length:]) for part in parts]
        if len(set(endings)) == len(endings):
            return endings
    return [f"{'/'.join(part)} ({number})" for number, part in enumerate(parts, start=1)]
