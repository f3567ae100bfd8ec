"""Whether a run that goes on is still the same run."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from msdetr.api.training.resume import MAY_CHANGE, find_start
from msdetr.engine.checkpoint import save_checkpoint
from msdetr.engine.run_directory import RunDirectory
from msdetr.engine.run_state import RunState
from msdetr.errors import CheckpointError, RunDirectoryError
from msdetr.recipe import load_recipe, recipe_to_dict, recipe_to_yaml


def save(checkpoint: Path, recipe: dict[str, Any], epoch: int = 1) -> None:
    info = {"recipe": recipe, "run_state": RunState(epoch=epoch).to_dict()}
    save_checkpoint(checkpoint, info=info, model={"weight": torch.zeros(1)})


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    """A run of shapes_tiny that has finished an epoch, with its best checkpoint."""
    recipe = load_recipe("shapes_tiny")
    directory = RunDirectory(tmp_path / "run")
    directory.create(recipe_text=recipe_to_yaml(recipe), environment={})
    save(directory.last, recipe_to_dict(recipe))
    save(directory.best, recipe_to_dict(recipe))
    return directory


def resume(run: RunDirectory, *changes: str) -> Path | None:
    recipe = load_recipe("shapes_tiny", changes)
    return find_start(run, recipe, resume=True, resume_from=None)


@pytest.mark.parametrize(
    "change",
    [
        *("data.root=/elsewhere", "data.num_workers=3", "data.val.images=photos"),
        *("train.log_every_steps=7", "train.max_seconds=100"),
        *("evaluation.every_epochs=3", "inspection.trace_every_epoch=true", "description=mine"),
    ],
)
def test_what_no_weight_depends_on_may_change(change: str, run: RunDirectory) -> None:
    assert resume(run, change) == run.last


@pytest.mark.parametrize(
    "change",
    [
        *("train.lr=0.5", "train.seed=7", "data.pad_multiple=64", "evaluation.nms_threshold=0.5"),
        *("train.batch_size=4", "data.train.limit=8", "supervision.one_to_many.k=5"),
    ],
)
def test_what_results_depend_on_may_not(change: str, run: RunDirectory) -> None:
    field = re.escape(change.partition("=")[0])
    with pytest.raises(CheckpointError, match=rf"{field}: was .* resume with the run's recipe"):
        resume(run, change)


def test_every_field_that_may_change_exists() -> None:
    values = recipe_to_dict(load_recipe("shapes_tiny"))
    for key in MAY_CHANGE:
        section = values
        for part in key.split("."):
            assert part in section, key
            section = section[part]


@pytest.mark.parametrize(
    ("schedule", "epochs", "message"),
    [
        ("step", 1, "2 epochs are finished; give at least as many"),
        ("cosine", 1, "2 epochs are finished; give at least as many"),
        ("cosine", 9, "a cosine schedule depends on it"),
        ("step", 9, None),
        ("step", 2, None),
    ],
)
def test_epochs_may_be_added_where_the_schedule_allows(
    schedule: str, epochs: int, message: str | None, run: RunDirectory
) -> None:
    kept = f"train.schedule={schedule}"
    save(run.last, recipe_to_dict(load_recipe("shapes_tiny", [kept])), epoch=2)
    if message is None:
        assert resume(run, kept, f"train.epochs={epochs}") == run.last
        return
    with pytest.raises(CheckpointError, match=rf"train\.epochs: was .*{message}"):
        resume(run, kept, f"train.epochs={epochs}")


def test_a_lost_last_checkpoint_does_not_begin_the_run_anew(run: RunDirectory) -> None:
    save(run.epoch_checkpoint(1), {})
    shutil.rmtree(run.last)
    with pytest.raises(RunDirectoryError, match=r"no checkpoints/last any more, only best, epoch"):
        resume(run)
    assert run.best.is_dir()


def test_a_damaged_checkpoint_is_refused_with_the_way_out(run: RunDirectory) -> None:
    (run.last / "model.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"(?s)damaged.*go on from .*best with `resume_from`"):
        resume(run)


def test_a_run_killed_before_its_first_checkpoint_begins_anew(run: RunDirectory) -> None:
    shutil.rmtree(run.checkpoints)
    assert resume(run) is None


@pytest.mark.parametrize(("class_weight", "is_same"), [(0.3, True), (0.5, False)])
def test_run_of_an_earlier_version_goes_on_if_its_recipe_means_the_same(
    class_weight: float, is_same: bool, tmp_path: Path
) -> None:
    recipe = load_recipe("ddetr_300q")
    stored = recipe_to_dict(recipe)
    weights = {"iou_weight": 1 - class_weight, "class_weight": class_weight}  # once two fields
    stored["supervision"]["one_to_many"].update(weights)
    save(tmp_path / "last", stored)
    directory = RunDirectory(tmp_path / "new")
    if is_same:
        found = find_start(directory, recipe, resume=False, resume_from=tmp_path / "last")
        assert found == tmp_path / "last"
        return
    with pytest.raises(CheckpointError, match=r"iou_weight: was 0\.5 in the run, is 0\.7"):
        find_start(directory, recipe, resume=False, resume_from=tmp_path / "last")
