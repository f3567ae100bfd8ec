from __future__ import annotations

import json
import math
from pathlib import Path

from msdetr.engine.metrics_file import append_row, read_rows, rewind_rows
from msdetr.engine.run_state import RunState


def test_numbers_that_are_not_finite_become_null(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    append_row(path, {"kind": "step", "loss": math.nan, "terms": {"a": math.inf, "b": [1.5]}})
    assert json.loads(path.read_text()) == {
        "kind": "step",
        "loss": None,
        "terms": {"a": None, "b": [1.5]},
    }


def test_rewinding_keeps_what_is_done(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    rows = [
        {"kind": "step", "epoch": 0, "step": 5},
        {"kind": "epoch", "epoch": 0, "step": 5},
        {"kind": "step", "epoch": 1, "step": 8},
        {"kind": "step", "epoch": 1, "step": 10},
        {"kind": "epoch", "epoch": 1, "step": 10},
    ]
    for row in rows:
        append_row(path, row)
    # Trained to the end of the second epoch, but not evaluated yet.
    rewind_rows(path, RunState(epoch=1, step=10, step_in_epoch=5))
    assert read_rows(path) == rows[:4]
    rewind_rows(path, RunState(epoch=1, step=8, step_in_epoch=3))
    assert read_rows(path) == rows[:3]
    rewind_rows(path, RunState())
    assert read_rows(path) == []
    assert [entry.name for entry in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_a_row_cut_short_by_a_crash_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    append_row(path, {"kind": "step", "epoch": 0, "step": 1})
    with path.open("a") as file:
        file.write('{"kind": "step", "epo')
    rewind_rows(path, RunState(step=9))
    append_row(path, {"kind": "step", "epoch": 0, "step": 2})
    assert [row["step"] for row in read_rows(path)] == [1, 2]
