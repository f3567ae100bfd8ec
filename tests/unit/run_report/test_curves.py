"""Figures of trainings: what is drawn where, and how."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from msdetr.drawing.figures import save_figure
from msdetr.errors import UsageError
from msdetr.run_report.curves import PlottedRun, draw_training_curves, labels_of
from msdetr.run_report.history import HistoryRow, RunHistory


def row(epoch: int, step: int | None, value: float, *, mixed: bool, ap: float | None) -> HistoryRow:
    terms = {f"one_to_one/{name}/{layer}": value for name in ("class", "box") for layer in (0, 1)}
    terms |= {"one_to_one/giou/0": 2 * value, "one_to_one/giou/1": 3 * value}
    if mixed:
        terms["one_to_many/class/0"] = value
    scores = {} if ap is None else {"ap": ap, "ap50": 1.5 * ap}
    return HistoryRow(epoch=epoch, step=step, lr=1e-3, terms=terms, scores=scores)


def run(label: str, *, mixed: bool = True, steps: bool = True, **options: Any) -> PlottedRun:
    epochs = tuple(
        row(e, 10 * (e + 1) if steps else None, 0.5 - 0.1 * e, mixed=mixed, ap=0.1 * e or None)
        for e in range(3)
    )
    fine = [row(s // 11, s, 0.6, mixed=mixed, ap=None) for s in range(5, 31, 5)] if steps else ()
    history = RunHistory(path=Path(f"{label}/log"), epochs=epochs, steps=tuple(fine))
    return PlottedRun(label=label, history=history, **options)


def drawn(runs: Sequence[PlottedRun], layer: int = -1) -> dict[str, Figure]:
    return {entry.name: entry.figure for entry in draw_training_curves(runs, layer)}


def lines(figure: Figure, panel: int) -> list[tuple[list[float], list[float], str]]:
    return [
        (list(line.get_xdata()), list(line.get_ydata()), str(line.get_linestyle()))  # type: ignore[arg-type]
        for line in figure.axes[panel].lines
    ]


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for entry in figure.legends for text in entry.get_texts()]


def test_solid_with_and_dashed_without_mixed_supervision() -> None:
    figures = drawn([run("with"), run("without", mixed=False)])
    assert list(figures) == ["losses", "ap", "learning_rate"]
    losses = figures["losses"]
    assert [style for _, _, style in lines(losses, 0)] == ["-", "-", "--", "--"]
    assert legend(losses) == ["with", "without", "with mixed supervision", "without"]
    colors = [line.get_color() for line in losses.axes[0].lines]
    assert colors[0] == colors[1] != colors[2] == colors[3]


def test_means_of_epochs_stand_in_their_middle_and_scores_at_their_end() -> None:
    figures = drawn([run("a")])
    (steps_x, _, _), (x, y, _) = lines(figures["losses"], 0)
    assert (x, y) == ([0.5, 1.5, 2.5], pytest.approx([0.5, 0.4, 0.3]))
    assert steps_x == [0.5, 1.0, 1.5, 2.0, 2.5, 3.0]
    ((x, y, _),) = lines(figures["ap"], 0)
    assert (x, y) == ([2.0, 3.0], pytest.approx([10.0, 20.0]))


@pytest.mark.parametrize(("layer", "giou_factor"), [(-1, 3), (0, 2), (1, 3)])
def test_regression_loss_is_weighted_like_the_run(layer: int, giou_factor: int) -> None:
    weighted = run("a", box_weight=4.0, giou_weight=1.0)
    figure = drawn([weighted], layer)["losses"]
    _, (_, y, _) = lines(figure, 1)
    assert y == pytest.approx([v * (4 + giou_factor) for v in (0.5, 0.4, 0.3)])
    assert figure.axes[1].get_ylabel() == "4 L1 + 1 (1 - GIoU), per target"


def test_run_in_its_first_epoch_is_drawn_over_steps() -> None:
    first = run("a")
    begun = PlottedRun(
        label="b", history=RunHistory(path=Path("b"), epochs=(), steps=first.history.steps[:2])
    )
    figures = drawn([first, begun])
    assert figures["losses"].axes[0].get_xlabel() == "optimizer steps"
    *_, (x, _, _) = lines(figures["losses"], 0)
    assert x == [5.0, 10.0]
    assert legend(figures["ap"]) == ["a"]
    with pytest.raises(UsageError, match="no common axis"):
        drawn([begun, run("c", steps=False)])


def test_figure_without_values_is_left_out() -> None:
    history = RunHistory(path=Path("a"), epochs=(), steps=run("a").history.steps)
    figures = drawn([PlottedRun(label="a", history=history)])
    assert list(figures) == ["losses", "learning_rate"]


def test_figures_carry_their_titles() -> None:
    titles = {entry.name: entry.title for entry in draw_training_curves([run("a")])}
    assert titles == {"losses": "Losses", "ap": "AP", "learning_rate": "Learning rate"}


def test_layer_that_a_run_lacks_is_refused() -> None:
    with pytest.raises(UsageError, match="`layer`: a has layers 0 to 1, got 2"):
        drawn([run("a")], 2)


def test_pictures_of_the_same_numbers_are_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        figure = drawn([run("a")])["ap"]
        for suffix in (".png", ".svg"):
            save_figure(figure, tmp_path / f"{name}{suffix}")
    for suffix in (".png", ".svg"):
        first, second = ((tmp_path / f"{n}{suffix}").read_bytes() for n in ("one", "two"))
        assert first == second
    assert "AP on the validation images (%)" in (tmp_path / "one.svg").read_text()


@pytest.mark.parametrize(
    ("paths", "labels"),
    [
        (["/runs/a", "/runs/b"], ["a", "b"]),
        (["/x/run", "/y/run"], ["x/run", "y/run"]),
        (["/x/run", "/x/run"], ["x/run (1)", "x/run (2)"]),
    ],
)
def test_labels_are_the_shortest_that_differ(paths: list[str], labels: list[str]) -> None:
    assert labels_of(paths) == labels


def with_groups(*branches: str) -> PlottedRun:
    """A run whose branches have the class losses 1, 2, ... in its only step."""
    names = ("one_to_one", *branches)
    terms = {f"{name}/class/0": float(i) for i, name in enumerate(names, start=1)}
    terms |= {f"{name}/{kind}/0": 1.0 for name in names for kind in ("box", "giou")}
    only = HistoryRow(epoch=0, step=1, lr=None, terms=terms, scores={})
    return PlottedRun(label="a", history=RunHistory(path=Path("a"), epochs=(), steps=(only,)))


def test_independent_groups_are_drawn_as_their_mean_beside_the_others() -> None:
    branches = ("group_1", "group_1_proposals", "group_2", "group_10", "hybrid", "denoising")
    figure = drawn([with_groups(*branches)])["query_groups"]
    assert legend(figure) == ["primary", "mean of 3 further groups", "hybrid", "denoising"]
    # (2 + 4 + 5) / 3: the proposals of a group are no group.
    assert [y for _, y, _ in lines(figure, 0)] == [[1.0], [11 / 3], [6.0], [7.0]]
    assert [y for _, y, _ in lines(figure, 1)] == [[7.0]] * 4
    assert len({line.get_color() for line in figure.axes[0].lines}) == 4


def test_group_of_any_name_is_drawn() -> None:
    branches = ("one_to_many", "proposals", "copies", "copies_one_to_many", "copies_proposals")
    figure = drawn([with_groups(*branches)])["query_groups"]
    assert legend(figure) == ["primary", "copies"]
    assert [y for _, y, _ in lines(figure, 0)] == [[1.0], [4.0]]


def test_several_runs_with_groups_are_told_apart() -> None:
    runs = [with_groups("hybrid"), run("plain"), replace(with_groups("denoising"), label="b")]
    figure = drawn(runs)["query_groups"]
    assert legend(figure) == ["a: primary", "a: hybrid", "b: primary", "b: denoising"]


def test_every_axis_has_a_unit_and_starts_where_its_data_start() -> None:
    for figure in drawn([run("a"), run("b", mixed=False)]).values():
        for axes in figure.axes:
            assert axes.get_xlabel() == "epochs"
            assert any(unit in axes.get_ylabel() for unit in ("per target", "(%)", "(no unit)"))
            first = min(line.get_xdata()[0] for line in axes.lines)  # type: ignore[index]
            assert axes.get_xlim()[0] == math.floor(first)
    figure = drawn([run("a")])["losses"]
    low, high = figure.axes[0].get_ylim()
    assert 0.27 < low < 0.3
    assert 0.6 < high < 0.63


def test_eight_runs_are_told_apart_and_nine_are_rejected() -> None:
    runs = [run(f"run {number}") for number in range(9)]
    lines = drawn(runs[:8])["losses"].axes[0].lines
    assert len(lines) == 8
    assert len({line.get_color() for line in lines}) == 8
    assert len({line.get_marker() for line in lines}) == 8
    with pytest.raises(UsageError, match=r"runs: at most 8 .* got 9"):
        drawn(runs)


def test_query_groups_of_more_runs_than_fit_are_left_out_by_name() -> None:
    runs = [replace(with_groups("hybrid", "denoising"), label=name) for name in "abcd"]
    figure = next(one for one in draw_training_curves(runs) if one.name == "query_groups")
    assert len(figure.figure.axes[0].lines) == 6
    assert figure.note == "more than 8 lines, so it leaves out c, d"
