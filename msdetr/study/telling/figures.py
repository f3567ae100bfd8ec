"""The figures of a study: differences with intervals, curves, duplicates, errors, positives."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from msdetr.drawing.curves import Curve, Panel, Points, draw_curves
from msdetr.drawing.figures import GREY, add_legend, color_of, new_figure
from msdetr.evaluation.tide_errors import ERROR_KINDS
from msdetr.study.arm_findings import ArmFindings, Decision
from msdetr.study.study_findings import StudyFindings
from msdetr.study.telling.numbers import metric_title

_BAND = "#E9E9E9"
_GRID = "#E4E4E4"
_LONGEST_NAME = 25


def draw_study(study: StudyFindings) -> dict[str, Figure]:
    """Draw every figure that there are numbers for, by name."""
    arms = [arm for arm in study.arms if arm.values]
    decided = [(arm, arm.decision) for arm in arms if arm.decision and arm.decision.headline]
    figures: dict[str, Figure] = {}
    if decided:
        figures["forest"] = _draw_forest(study, decided)
    if any(arm.curve for arm in arms):
        figures["epochs"] = _draw_epochs(study, arms)
    if arms:
        figures["nms"] = _draw_nms(study, arms)
    with_errors = [arm for arm in arms if arm.measures["errors"]]
    if with_errors:
        figures["errors"] = _draw_errors(study, with_errors)
    if any(arm.measures["branches"] for arm in arms):
        figures["branches"] = _draw_branches(study, arms)
    with_branch = [arm for arm in arms if arm.has_one_to_many and arm.measures["positives"]]
    if with_branch:
        figures["positives"] = _draw_positives(study, with_branch)
    return figures


def _series(study: StudyFindings, arm: ArmFindings) -> int:
    """Return the number of an arm's color, the same in every figure."""
    return [each.name for each in study.arms].index(arm.name)


def _draw_forest(study: StudyFindings, arms: Sequence[tuple[ArmFindings, Decision]]) -> Figure:
    figure, (plot,) = new_figure(1, panel_size=(6.4, 0.55 + 0.55 * len(arms)), legend_rows=2)
    _make_room_for_names(figure, [arm.name for arm, _ in arms])
    plot.axvspan(-study.smallest_effect, study.smallest_effect, color=_BAND, lw=0)
    plot.axvline(0, color=GREY, lw=0.8)
    for place, (arm, decision) in enumerate(arms):
        _draw_arm(plot, -place, decision, color_of(_series(study, arm)))
    plot.set_yticks([-place for place in range(len(arms))], [_short(arm.name) for arm, _ in arms])
    plot.set_ylim(-len(arms) + 0.4, 0.6)
    metric = metric_title(study.metric, study.nms_threshold)
    plot.set_xlabel(f"difference of {metric} from {_short(study.baseline)}")
    plot.tick_params(axis="y", length=0)
    plot.spines["left"].set_visible(False)
    plot.margins(x=0.06)
    add_legend(figure, _forest_legend(study), num_columns=3)
    return figure


def _draw_arm(plot: Axes, place: float, decision: Decision, color: str) -> None:
    headline, found = decision.headline, decision.comparison
    assert headline is not None
    ends = [headline.interval.low, headline.interval.high]
    plot.plot(ends, [place - 0.16] * 2, color=color, lw=1.4, alpha=0.55, solid_capstyle="butt")
    if found is not None:
        plot.plot([found.paired.low, found.paired.high], [place] * 2, color=color, lw=3)
    values = [each.difference for each in decision.over_images.values()]
    plot.plot(values, [place + 0.16] * len(values), ls="", marker="o", ms=3.5, color=GREY)
    plot.plot([headline.difference], [place], ls="", marker="D", ms=6, color=color, mec="white")


def _forest_legend(study: StudyFindings) -> list[Line2D | Patch]:
    dark = "#333333"
    return [
        Line2D([], [], color=dark, ls="", marker="D", ms=6, label="mean difference"),
        Line2D([], [], color=dark, lw=3, label="95% over seeds (decides)"),
        Line2D([], [], color=dark, lw=1.4, alpha=0.55, label="95% over seeds and images"),
        Line2D([], [], color=GREY, ls="", marker="o", ms=3.5, label="single seeds"),
        Patch(color=_BAND, label=f"±{study.smallest_effect:g}: of no interest"),
    ]


def _make_room_for_names(figure: Figure, names: Sequence[str]) -> None:
    """Move the panel to the right by what the longest name takes."""
    extra = 0.075 * max(0, min(_LONGEST_NAME, max(map(len, names))) - 7)
    width, height = figure.get_size_inches()
    (plot,) = figure.axes
    box = plot.get_position()
    total = width + extra
    figure.set_size_inches(total, height)
    plot.set_position(
        ((box.x0 * width + extra) / total, box.y0, box.width * width / total, box.height)
    )


def _short(name: str) -> str:
    """Leave out the middle of a long name: names of arms differ at their ends."""
    if len(name) <= _LONGEST_NAME:
        return name
    half = (_LONGEST_NAME - 1) // 2
    return f"{name[:half]}…{name[-half:]}"


def _draw_epochs(study: StudyFindings, arms: Sequence[ArmFindings]) -> Figure:
    curves = [
        Curve(
            label=_short(arm.name),
            points=Points([point[0] for point in arm.curve], [point[1] for point in arm.curve]),
            series=_series(study, arm),
        )
        for arm in arms
    ]
    name = metric_title(study.metric)
    plain = "" if study.nms_threshold is None else " without NMS"
    title = f"{name}{plain}, mean over seeds; the shade reaches from the lowest to the highest"
    panel = Panel(title="", y_label=name, curves=curves)
    figure = draw_curves([panel], "epoch", num_columns=2)
    (plot,) = figure.axes
    plot.set_title(title, fontsize=9)
    for arm in arms:
        epochs, _, low, high = zip(*arm.curve, strict=True) if arm.curve else ((),) * 4
        plot.fill_between(epochs, low, high, color=color_of(_series(study, arm)), alpha=0.15, lw=0)
    highest = max(point[3] for arm in arms for point in arm.curve)
    plot.set_ylim(0, 1.06 * highest or None)
    return figure


def _draw_nms(study: StudyFindings, arms: Sequence[ArmFindings]) -> Figure:
    columns = _columns(arms, 5.4)
    figure, (plot,) = new_figure(1, legend_rows=math.ceil(len(arms) / columns))
    names = list(arms[0].measures["nms"])
    # From no suppression to the strongest.
    order = [names[0], *reversed(names[1:])]
    for arm in arms:
        means = [arm.measures["nms"][name].mean for name in order]
        values = [math.nan if mean is None else mean for mean in means]
        plot.plot(values, color=color_of(_series(study, arm)), lw=1.8, marker="o", ms=4)
    plot.set_xticks(range(len(order)), order)
    plot.set_xlabel("IoU of the suppression")
    plot.set_ylabel("AP")
    _finish(plot)
    add_legend(figure, _legend(study, arms), num_columns=columns)
    return figure


def _draw_errors(study: StudyFindings, arms: Sequence[ArmFindings]) -> Figure:
    columns = _columns(arms, 8.6)
    rows = math.ceil(len(arms) / columns)
    figure, (plot,) = new_figure(1, panel_size=(7.6, 2.8), legend_rows=rows)
    width = 0.8 / len(arms)
    for place, arm in enumerate(arms):
        means = [arm.measures["errors"].get(kind) for kind in ERROR_KINDS]
        heights = [0.0 if found is None or found.mean is None else found.mean for found in means]
        spreads = [
            0.0 if found is None or found.spread is None else found.spread for found in means
        ]
        at = np.arange(len(ERROR_KINDS)) + width * (place - (len(arms) - 1) / 2)
        plot.bar(at, heights, width * 0.9, color=color_of(_series(study, arm)))
        plot.errorbar(at, heights, spreads, ls="", color="#333333", lw=0.9)
    plot.set_xticks(range(len(ERROR_KINDS)), ERROR_KINDS)
    plot.set_ylabel("costs in AP50")
    _finish(plot)
    plot.set_ylim(bottom=0)
    add_legend(figure, _legend(study, arms), num_columns=columns)
    return figure


def _draw_branches(study: StudyFindings, arms: Sequence[ArmFindings]) -> Figure:
    branches = {"one_to_one": "One-to-one branch", "one_to_many": "One-to-many branch"}
    panels = [
        Panel(
            title=title,
            y_label="AP",
            curves=list(_layer_curves(study, arms, "branches", branch)),
            starts_at_zero=False,
        )
        for branch, title in branches.items()
    ]
    return draw_curves([panel for panel in panels if panel.curves], "decoder layer")


def _draw_positives(study: StudyFindings, arms: Sequence[ArmFindings]) -> Figure:
    wanted = {
        "per_target": ("Positives per target", "mean"),
        "dropped": ("Candidates that the cap drops", "share"),
        "without": ("Targets without positives", "share"),
    }
    panels = [
        Panel(title=title, y_label=unit, curves=list(_layer_curves(study, arms, "positives", key)))
        for key, (title, unit) in wanted.items()
    ]
    return draw_curves(panels, "decoder layer")


def _layer_curves(
    study: StudyFindings, arms: Sequence[ArmFindings], family: str, key: str
) -> Iterator[Curve]:
    """Draw the means of ``KEY/LAYER`` over the layers."""
    for arm in arms:
        found = {
            int(name.partition("/")[2]): math.nan if mean.mean is None else mean.mean
            for name, mean in arm.measures[family].items()
            if name.startswith(f"{key}/")
        }
        if found:
            points = Points(list(found), list(found.values()))
            yield Curve(label=_short(arm.name), points=points, series=_series(study, arm))


def _finish(plot: Axes) -> None:
    plot.grid(axis="y", color=_GRID, lw=0.6)
    plot.set_axisbelow(True)


def _columns(arms: Sequence[ArmFindings], width: float) -> int:
    """Return how many names of arms fit side by side into so many inches."""
    longest = max(len(_short(arm.name)) for arm in arms)
    return max(1, int(width / (0.6 + 0.08 * longest)))


def _legend(study: StudyFindings, arms: Sequence[ArmFindings]) -> list[Patch]:
    return [Patch(color=color_of(_series(study, arm)), label=_short(arm.name)) for arm in arms]
