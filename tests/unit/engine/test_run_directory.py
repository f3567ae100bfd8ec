from __future__ import annotations

import json
from collections.abc import Callable
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


def test_a_directory_in_use_is_refused_with_the_ways_out(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(RunDirectoryError, match=r"not empty.*`resume=True`.*`output`"):
        RunDirectory(tmp_path).create(recipe_text="", environment={})
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunDirectoryError, match="is a file"):
        RunDirectory(tmp_path / "file").create(recipe_text="", environment={})
    with pytest.raises(RunDirectoryError, match="cannot be written"):
        RunDirectory(tmp_path / "file" / "run").create(recipe_text="", environment={})


@pytest.mark.parametrize(
    "left", [[], ["environment.json"], ["environment.json", "recipe.yaml.new"]]
)
def test_a_start_cut_short_is_no_obstacle(tmp_path: Path, left: list[str]) -> None:
    run = RunDirectory(tmp_path)
    run.checkpoints.mkdir()
    for name in left:
        (tmp_path / name).write_text("{")
    assert not run.holds_run
    run.create(recipe_text="x: 1\n", environment={"a": 1})
    assert run.recipe_file.read_text() == "x: 1\n"
    assert json.loads(run.environment_file.read_text()) == {"a": 1}
    assert not (tmp_path / "recipe.yaml.new").exists()


def test_checkpoints_without_a_recipe_are_kept(tmp_path: Path) -> None:
    (RunDirectory(tmp_path).checkpoints / "last").mkdir(parents=True)
    with pytest.raises(RunDirectoryError, match="not empty"):
        RunDirectory(tmp_path).check_free()


def test_a_read_only_place_is_refused_at_once(small_disk: Callable[..., Path]) -> None:
    disk = small_disk(100_000, "ro")
    with pytest.raises(RunDirectoryError, match=f"{disk} is read-only or needs other rights"):
        RunDirectory(disk / "runs" / "mine").check_writable()


def test_epoch_checkpoints_sort_by_name(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    assert run.epoch_checkpoint(7).name == "epoch_007"
    assert run.epoch_checkpoint(7).parent == run.last.parent == run.best.parent


@pytest.mark.parametrize(
    ("step", "name", "content", "is_free"),
    [
        (0, "train.log", "failed", True),
        (0, "metrics.jsonl", "", True),
        (None, "train.log", "failed", True),
        (1, "train.log", "failed", False),
        (0, "metrics.jsonl", '{"kind": "step", "step": 1}\n', False),
        (None, "metrics.jsonl", '{"kind": "step", "step": 1}\n', False),
        (0, "thesis.tex", "", False),
        ("nonsense", "train.log", "failed", False),
        (0, "checkpoints/best/checkpoint.json", "{}", False),
    ],
)
def test_a_run_without_any_step_is_no_obstacle(
    tmp_path: Path, step: object, name: str, content: str, is_free: bool
) -> None:
    run = RunDirectory(tmp_path)
    run.create(recipe_text="x: 1\n", environment={})
    if step is not None:
        run.last.mkdir()
        (run.last / "checkpoint.json").write_text(json.dumps({"run_state": {"step": step}}))
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(content)
    if is_free:
        run.create(recipe_text="x: 2\n", environment={})
        assert run.find_last() is None
        assert run.recipe_file.read_text() == "x: 2\n"
    else:
        with pytest.raises(RunDirectoryError, match="not empty"):
            run.create(recipe_text="x: 2\n", environment={})
        assert run.recipe_file.read_text() == "x: 1\n"
