"""The state of a cell, read from what its processes left."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from msdetr.process_lock import hold
from msdetr.study.cell import Cell


@pytest.fixture
def cell(tmp_path: Path) -> Cell:
    (tmp_path / "jobs").mkdir()
    return Cell("mixed", 7, tmp_path / "cells" / "mixed" / "seed_7", tmp_path / "jobs")


def begin(cell: Cell) -> None:
    cell.path.mkdir(parents=True)
    (cell.path / "recipe.yaml").write_text("extends: shapes_tiny\n")


def save(cell: Cell, epoch: int, num_epochs: int = 3, name: str = "last") -> None:
    checkpoint = cell.path / "checkpoints" / name
    checkpoint.mkdir(parents=True)
    info = {"run_state": {"epoch": epoch}, "recipe": {"train": {"epochs": num_epochs}}}
    (checkpoint / "checkpoint.json").write_text(json.dumps(info))


def test_a_cell_from_its_start_to_its_end(cell: Cell) -> None:
    assert (cell.name, cell.state, cell.num_epochs) == ("mixed/seed_7", "missing", 0)
    with hold(cell.lock_file):
        assert cell.state == "running"
        begin(cell)
        assert cell.state == "running"
    assert cell.state == "interrupted"
    save(cell, 3)
    assert cell.state == "finished"
    assert not cell.is_analysed
    cell.analysis.mkdir()
    assert cell.is_analysed


def test_a_cell_is_finished_by_its_checkpoint_not_by_its_rows(cell: Cell) -> None:
    begin(cell)
    save(cell, 2)
    rows = [{"kind": "epoch", "epoch": epoch, "ap": 0.1 * epoch} for epoch in range(3)]
    (cell.path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert cell.num_epochs == 3
    assert cell.state == "interrupted"


@pytest.mark.parametrize(
    ("spent", "step_in_epoch", "state"),
    [(59.0, 0, "interrupted"), (61.0, 3, "interrupted"), (61.0, 0, "finished")],
)
def test_a_cell_may_end_by_its_time(
    spent: float, step_in_epoch: int, state: str, cell: Cell
) -> None:
    begin(cell)
    checkpoint = cell.path / "checkpoints" / "last"
    checkpoint.mkdir(parents=True)
    info = {
        "run_state": {"epoch": 1, "step_in_epoch": step_in_epoch},
        "recipe": {"train": {"epochs": 3, "max_seconds": 60.0}},
        "costs": {"train_seconds": spent},
    }
    (checkpoint / "checkpoint.json").write_text(json.dumps(info))
    assert cell.state == state


def test_the_older_checkpoint_counts_between_two_renames(cell: Cell) -> None:
    begin(cell)
    save(cell, 3, name="last.old")
    assert cell.state == "finished"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"run_state": {"epoch": 3}}', '{"recipe": 1}'])
def test_a_damaged_checkpoint_finishes_nothing(cell: Cell, text: str) -> None:
    begin(cell)
    save(cell, 3)
    (cell.path / "checkpoints/last/checkpoint.json").write_text(text)
    assert cell.state == "interrupted"


def test_a_failed_cell_says_why_until_it_is_finished(cell: Cell) -> None:
    begin(cell)
    cell.error_file.write_text("out of memory\n")
    assert (cell.state, cell.error) == ("failed", "out of memory")
    with hold(cell.lock_file):
        assert cell.state == "running"
    save(cell, 3)
    assert cell.state == "finished"


def test_scores_are_those_of_the_last_evaluation(cell: Cell) -> None:
    begin(cell)
    assert cell.last_score("ap") is None
    rows = [
        {"kind": "step", "epoch": 0, "step": 1, "ap": 9.0},
        {"kind": "epoch", "epoch": 0, "ap": 0.25, "ap_small": None, "cost": {"train_seconds": 2.5}},
        {"kind": "epoch", "epoch": 1},
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (cell.path / "metrics.jsonl").write_text(lines + '{"kind": "epo')
    assert cell.last_score("ap") == 0.25
    assert cell.last_score("ap_small") is None
    assert cell.num_epochs == 2
    assert cell.train_seconds == 2.5


def test_a_run_that_logged_no_costs_has_no_time(cell: Cell) -> None:
    begin(cell)
    row = {"kind": "epoch", "epoch": 0, "ap": 0.25}
    (cell.path / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    assert cell.train_seconds is None
