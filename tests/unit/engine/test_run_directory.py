from __future__ import annotations

import json
from pathlib import Path

import pytest

from msdetr.engine.environment import collect_environment
from msdetr.engine.run_directory import RunDirectory
from msdetr.errors import RunDirectoryError


def test_a_new_run_holds_recipe_and_environment(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "a" / "b")
    run.create(recipe_text="x: 1\n", environment=collect_environment())
    assert run.holds_run
    assert run.recipe_file.read_text() == "x: 1\n"
    assert "torch" in json.loads(run.environment_file.read_text())["packages"]
    assert run.find_last() is None
    run.check_resumable()


def test_a_directory_in_use_is_refused_with_the_ways_out(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(RunDirectoryError, match=r"not empty.*--resume.*--output"):
        RunDirectory(tmp_path).create(recipe_text="", environment={})
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunDirectoryError, match="is a file"):
        RunDirectory(tmp_path / "file").create(recipe_text="", environment={})
    with pytest.raises(RunDirectoryError, match="cannot be written"):
        RunDirectory(tmp_path / "file" / "run").create(recipe_text="", environment={})


def test_nothing_to_resume_is_said(tmp_path: Path) -> None:
    assert not RunDirectory(tmp_path).holds_run
    with pytest.raises(RunDirectoryError, match="holds no run"):
        RunDirectory(tmp_path).check_resumable()


def test_epoch_checkpoints_sort_by_name(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    assert run.epoch_checkpoint(7).name == "epoch_007"
    assert run.epoch_checkpoint(7).parent == run.last.parent == run.best.parent
