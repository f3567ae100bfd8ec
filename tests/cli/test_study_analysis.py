"""What is computed of a trained cell with its model: the same as evaluation and inspection say."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from msdetr.api.study.cell_analysis import analyse_cell
from msdetr.errors import CheckpointError
from msdetr.study.stored_analysis import read_analysis

Msdetr = Callable[..., Any]


@pytest.fixture
def cell(run_dir: Path, tmp_path: Path) -> Path:
    """A trained cell that nobody has analysed."""
    return Path(shutil.copytree(run_dir, tmp_path / "seed_42"))


def test_analysis_agrees_with_evaluation_and_inspection(
    msdetr: Msdetr, cell: Path, tmp_path: Path
) -> None:
    analyse_cell(cell, device="cpu")
    found = read_analysis(cell / "analysis")
    assert found.has_one_to_many
    assert set(found.branches) == {"one_to_one", "one_to_many"}
    metrics = json.loads((cell / "evaluation/metrics.json").read_text())
    assert found.branches["one_to_one"][-1]["ap"] == metrics["ap"]
    out = tmp_path / "matching"
    command = ("inspect-matching", "--ckpt", cell / "checkpoints/last", "--device", "cpu")
    assert msdetr(*command, "--output", out).code == 0
    summary = json.loads((out / "summary.json").read_text())
    assert found.num_traced == summary["num_images"]
    for layer in summary["layers"]:
        rows = [row for row in found.positives if row.layer == layer["layer"]]
        assert len(rows) == summary["num_targets"]
        total = layer["positives_per_target"]["mean"] * len(rows)
        assert sum(row.positives for row in rows) == pytest.approx(total)
        assert sum(row.candidates - row.kept for row in rows) == layer["positives_dropped_by_cap"]
        without = layer["targets_without_positives"]
        assert sum(row.positives == 0 for row in rows) == sum(without.values())


def test_same_bytes_and_whole_or_not_at_all(
    cell: Path,
    content_of: Callable[[Path], dict[str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    analyse_cell(cell, device="cpu")
    first = content_of(cell)
    analyse_cell(cell, device="cpu")
    assert content_of(cell) == first
    shutil.rmtree(cell / "analysis")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("msdetr.api.study.cell_analysis.write_positives", fail)
    with pytest.raises(OSError, match="No space"):
        analyse_cell(cell, device="cpu")
    assert not (cell / "analysis").exists()


def test_cell_without_a_checkpoint_is_refused(cell: Path) -> None:
    shutil.rmtree(cell / "checkpoints")
    with pytest.raises(CheckpointError, match="has no last checkpoint to analyse"):
        analyse_cell(cell, device="cpu")
