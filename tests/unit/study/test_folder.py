"""What a study's folder is frozen to, and what is refused in it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from msdetr.errors import StudyError
from msdetr.recipe import load_recipe, recipe_to_yaml
from msdetr.study.design import cell_recipe, load_design, resolve_arms
from msdetr.study.folder import StudyFolder, read_study
from msdetr.study.lock import StudyLock

DESIGN: dict[str, Any] = {
    "baseline": "one",
    "arms": {"one": {"recipe": "shapes_tiny_baseline"}, "many": {"recipe": "shapes_tiny"}},
    "vary": ["model", "supervision"],
    "seeds": [1, 2],
}


@dataclass
class Study:
    """A study in a temporary folder, begun with a design that may change."""

    root: Path

    @property
    def folder(self) -> StudyFolder:
        return StudyFolder(self.root / "out")

    @property
    def file(self) -> Path:
        return self.root / "study.yaml"

    def begin(self, **changes: object) -> StudyLock:
        self.file.write_text(yaml.safe_dump({**DESIGN, **changes}, sort_keys=False))
        design = load_design(self.file)
        return self.folder.begin(self.file, design, resolve_arms(design, self.file))

    def add_cell(self, arm: str, seed: int, *overrides: str) -> Path:
        recipe = load_recipe(DESIGN["arms"][arm]["recipe"], overrides)
        path = self.folder.cell(arm, seed)
        (path / "evaluation").mkdir(parents=True)
        (path / "evaluation" / "metrics.json").write_text("{}")
        (path / "recipe.yaml").write_text(recipe_to_yaml(cell_recipe(recipe, seed)))
        return path


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return Study(tmp_path)


def refused(action: Callable[..., object], *arguments: Any, **changes: Any) -> str:
    with pytest.raises(StudyError) as caught:
        action(*arguments, **changes)
    return str(caught.value)


def test_a_begun_study_is_read_without_its_file(study: Study) -> None:
    lock = study.begin()
    text = study.file.read_text()
    study.file.unlink()
    design, folder = read_study(study.folder.path)
    assert design == lock.design
    assert folder.design_file.read_text() == text
    assert [(cell.arm, cell.seed) for cell in folder.cells()] == [
        ("one", 1),
        ("one", 2),
        ("many", 1),
        ("many", 2),
    ]
    assert folder.cells()[0].path == folder.path / "cells/one/seed_1"
    assert lock.load_recipes("lock")["many"] == load_recipe("shapes_tiny")


def test_the_same_design_changes_nothing(study: Study) -> None:
    before = study.begin()
    stamp = study.folder.lock_file.stat().st_mtime_ns
    assert study.begin() == before
    assert study.folder.lock_file.stat().st_mtime_ns == stamp


def test_added_seeds_and_arms_are_recorded(study: Study) -> None:
    study.begin()
    third = {**DESIGN["arms"], "k4": {"recipe": "shapes_tiny", "set": {"model.dropout": 0.1}}}
    lock = study.begin(seeds=[1, 2, 3])
    assert not lock.seeds[3].after_results
    study.add_cell("one", 1)
    lock = study.begin(seeds=[1, 2, 3, 4], arms=third)
    assert [lock.seeds[seed].after_results for seed in (1, 2, 3, 4)] == [False, False, False, True]
    assert {name: added.after_results for name, added in lock.arms.items()} == {
        "one": False,
        "many": False,
        "k4": True,
    }
    design, _ = read_study(study.folder.path)
    assert design.seeds == (1, 2, 3, 4)
    assert list(design.arms) == ["one", "many", "k4"]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"metric": "ap50"}, 'metric: was "ap" when the study began, is "ap50"'),
        ({"nms_threshold": 0.6}, "nms_threshold: was null when the study began, is 0.6"),
        ({"smallest_effect": 0.01}, "smallest_effect: was 0.005 when the study began, is 0.01"),
        ({"baseline": "many"}, 'baseline: was "one" when the study began, is "many"'),
        ({"seeds": [1, 3]}, "seeds: 2 was part of the study when it began, and is gone"),
        (
            {"arms": {**DESIGN["arms"], "many": {"recipe": "shapes_tiny_dn"}}},
            "3 problems",
        ),
        (
            {
                "arms": {
                    "one": DESIGN["arms"]["one"],
                    "many": {"recipe": "shapes_tiny", "set": {"supervision.one_to_many.k": 4}},
                }
            },
            "arms.many: supervision.one_to_many.k was 2 when the study began, is 4",
        ),
        (
            {"arms": {"one": DESIGN["arms"]["one"], "two": DESIGN["arms"]["many"]}},
            "arms.many: was part of the study when it began, and is gone",
        ),
    ],
)
def test_other_changes_are_refused(study: Study, changes: dict[str, Any], problem: str) -> None:
    study.begin()
    before = study.folder.lock_file.read_text()
    message = refused(study.begin, **changes)
    assert message.startswith(f"{study.file}: ")
    if problem != "3 problems":
        assert problem in message
        assert "\n" not in message
    else:
        assert "model.placement" in message
    assert study.folder.lock_file.read_text() == before


def test_a_changed_recipe_file_is_refused(study: Study) -> None:
    mine = study.root / "mine.yaml"
    mine.write_text("extends: shapes_tiny\n")
    arms = {**DESIGN["arms"], "many": {"recipe": "mine.yaml"}}
    study.begin(arms=arms)
    mine.write_text("extends: shapes_tiny\ndescription: better words\ntrain: {seed: 3}\n")
    study.begin(arms=arms)
    mine.write_text("extends: shapes_tiny\nmodel: {dropout: 0.2}\n")
    message = refused(study.begin, arms=arms)
    assert "arms.many: model.dropout was 0.0 when the study began, is 0.2" in message


def test_cells_that_were_trained_by_hand_belong_to_the_study(study: Study) -> None:
    study.add_cell("many", 1)
    study.begin()
    assert study.folder.cells()[2].state == "interrupted"


def test_cells_of_another_study_are_refused_and_named(study: Study) -> None:
    study.begin()
    study.add_cell("many", 1, "model.dropout=0.3")
    (study.folder.path / "cells/other/seed_1").mkdir(parents=True)
    study.folder.cell("one", 9).mkdir(parents=True)
    for message in (refused(study.begin), refused(read_study, study.folder.path)):
        assert message.startswith(f"{study.folder.path}: 3 problems")
        assert "cells/other/seed_1   is no cell of this study" in message
        assert "cells/one/seed_9     is no cell of this study" in message
        assert "cells/many/seed_1    belongs to another study: model.dropout must be 0.0" in message


def test_a_cell_with_another_seed_inside_is_refused(study: Study) -> None:
    study.begin()
    path = study.add_cell("one", 1)
    path.rename(path.with_name("seed_2"))
    assert "cells/one/seed_2: belongs to another study: train.seed must be 2" in refused(
        read_study, study.folder.path
    )


def test_a_cell_with_a_broken_recipe_is_refused(study: Study) -> None:
    study.begin()
    (study.add_cell("one", 1) / "recipe.yaml").write_text("model: 3\n")
    assert "cells/one/seed_1: has a recipe that cannot be read" in refused(
        read_study, study.folder.path
    )


def test_a_folder_with_other_things_is_refused(study: Study) -> None:
    study.folder.path.mkdir()
    (study.folder.path / "thesis.tex").write_text("")
    assert "is not empty and holds no study, but thesis.tex" in refused(study.begin)


def test_a_file_is_no_folder(study: Study) -> None:
    study.folder.path.write_text("")
    assert "is a file; give another `output`" in refused(study.begin)


def test_a_folder_without_a_study(study: Study) -> None:
    message = refused(read_study, study.root)
    assert message.startswith(f"{study.root}: holds no study (no study.lock.json)")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda lock: lock["recipes"]["many"]["model"].update(dropout=0.5), "or was edited"),
        (lambda lock: lock.pop("seeds"), "is damaged: seeds: Field required"),
        (lambda lock: lock.update(format_version=2), "has format version 2"),
        (lambda lock: lock.clear(), "has no valid format_version"),
    ],
)
def test_a_damaged_lock_is_refused(
    study: Study, change: Callable[[dict[str, Any]], object], problem: str
) -> None:
    study.begin()
    lock = json.loads(study.folder.lock_file.read_text())
    change(lock)
    study.folder.lock_file.write_text(json.dumps(lock))
    assert problem in refused(read_study, study.folder.path)


def test_what_a_start_cut_short_left_is_begun_again(study: Study) -> None:
    study.begin()
    study.folder.lock_file.unlink()
    (study.folder.path / "jobs").mkdir()
    study.begin()
    assert study.folder.holds_study
