"""Which assigner a recipe ends up with, from layer to layer."""

from __future__ import annotations

from typing import Any

import pytest

from msdetr.errors import RecipeError
from msdetr.recipe import load_recipe, recipe_from_dict, recipe_to_dict

KEY = "supervision.one_to_many"
OWN = "{file: mine.py, class: Mine}"


def section(*overrides: str) -> dict[str, Any]:
    recipe = load_recipe("shapes_tiny", [f"{KEY}.{text}" for text in overrides])
    values = recipe_to_dict(recipe)
    # Checkpoints hold these values, and compare them when a run is resumed.
    assert recipe_from_dict(values, "checkpoint") == recipe
    found: dict[str, Any] = values["supervision"]["one_to_many"]
    return found


def test_recipe_without_an_assigner_resolves_as_ever() -> None:
    keys = ["k", "threshold", "iou_weight", "max_positive_fraction", "loss"]
    assert list(section()) == keys


@pytest.mark.parametrize(
    "overrides",
    [
        ["k=5"],
        ["assigner={type: ms_detr, k: 5}"],
        ["assigner.k=5"],
        ["assigner.type=task_aligned", "assigner={type: ms_detr}", "k=5"],
    ],
)
def test_settings_of_ms_detr_stand_beside_the_assigner(overrides: list[str]) -> None:
    assert section(*overrides)["k"] == 5
    assert "assigner" not in section(*overrides)


def test_another_type_takes_nothing_over() -> None:
    found = section("k=5", "assigner.type=task_aligned")
    assert found.keys() == {"assigner", "loss"}
    assert found["assigner"]["k"] == 13
    found = section("assigner={type: task_aligned, k: 4}", "assigner.type=repeated_hungarian")
    assert found["assigner"]["copies"] == 6
    assert section("assigner.type=task_aligned", "assigner.k=4")["assigner"]["k"] == 4
    back = section("assigner.type=task_aligned", "assigner.type=ms_detr")
    assert back["k"] == 6


def test_type_of_a_file_may_be_left_out() -> None:
    found = section(f"assigner={OWN}", "assigner.options.radius=0.5")["assigner"]
    assert found == {
        "type": "file",
        "file": "mine.py",
        "class": "Mine",
        "options": {"radius": 0.5},
    }


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["assigner.type=task_alined"], "assigner.type: unknown type 'task_alined'; did you mean"),
        (["assigner.type=x"], "valid types are file, ms_detr, repeated_hungarian, task_aligned"),
        (["assigner={type: task_aligned, iou_powr: 3}"], "did you mean 'iou_power'?"),
        (["assigner={type: task_aligned, k: 0}"], "assigner.k: must be an integer >= 1, got 0"),
        (["assigner={type: task_aligned, k: 61}"], "assigner.k: must be at most model.num_queries"),
        (["assigner={type: ms_detr, tresh: 0}"], f"{KEY}.tresh: unknown key"),
        (["assigner.type=task_aligned", "k=3"], f"{KEY}.k: is a setting of ms_detr, but"),
        (["assigner={file: mine.py}"], "assigner.class: is missing; must be text"),
        (["assigner=3"], "assigner: must be a mapping, got 3"),
        ([f"assigner={OWN}", "assigner.options=3"], "assigner.options: must be a mapping, got 3"),
    ],
)
def test_mistakes_are_one_line(overrides: list[str], told: str) -> None:
    with pytest.raises(RecipeError) as caught:
        section(*overrides)
    assert str(caught.value).startswith("shapes_tiny: `overrides`: supervision.one_to_many.")
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)
