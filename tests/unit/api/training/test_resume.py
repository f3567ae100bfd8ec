"""Whether a run that goes on is still the same run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from msdetr.api.training.resume import find_start
from msdetr.engine.checkpoint import save_checkpoint
from msdetr.engine.run_directory import RunDirectory
from msdetr.errors import CheckpointError
from msdetr.recipe import load_recipe, recipe_to_dict


@pytest.mark.parametrize(("class_weight", "is_same"), [(0.3, True), (0.5, False)])
def test_run_of_an_earlier_version_goes_on_if_its_recipe_means_the_same(
    class_weight: float, is_same: bool, tmp_path: Path
) -> None:
    recipe = load_recipe("ddetr_300q")
    stored = recipe_to_dict(recipe)
    weights = {"iou_weight": 1 - class_weight, "class_weight": class_weight}  # once two fields
    stored["supervision"]["one_to_many"].update(weights)
    save_checkpoint(tmp_path / "last", info={"recipe": stored}, model={"weight": torch.zeros(1)})
    directory = RunDirectory(tmp_path / "new")
    if is_same:
        found = find_start(directory, recipe, resume=False, resume_from=tmp_path / "last")
        assert found == tmp_path / "last"
        return
    with pytest.raises(CheckpointError, match=r"iou_weight: was 0\.5 in the run, is 0\.7"):
        find_start(directory, recipe, resume=False, resume_from=tmp_path / "last")
