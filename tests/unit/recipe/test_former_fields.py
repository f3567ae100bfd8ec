"""Recipes and checkpoints of earlier versions, with fields that are no more."""

from __future__ import annotations

from pathlib import Path

import pytest

from msdetr.errors import RecipeError
from msdetr.recipe import load_recipe, recipe_from_dict, recipe_to_dict

O2M = "supervision.one_to_many"


@pytest.mark.parametrize(
    ("overrides", "weights"),
    [
        ([f"{O2M}.iou_weight=0.6"], (0.6, 0.4)),
        ([f"{O2M}.class_weight=0.6"], (0.4, 0.6)),  # over the recipe's iou_weight
        ([f"{O2M}.class_weight=1"], (0.0, 1.0)),
        ([f"{O2M}={{iou_weight: 0.6, class_weight: 0.4}}"], (0.6, 0.4)),
        ([f"{O2M}.iou_weight=0.6", f"{O2M}.class_weight=0.8"], (0.2, 0.8)),  # the last one wins
    ],
)
def test_class_weight_sets_iou_weight(overrides: list[str], weights: tuple[float, float]) -> None:
    one_to_many = load_recipe("ddetr_300q", overrides).supervision.one_to_many
    assert one_to_many is not None
    assert (one_to_many.iou_weight, one_to_many.class_weight) == weights


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (f"{O2M}={{iou_weight: 0.5, class_weight: 0.4}}", "must be 1 - iou_weight = 0.5, got 0.4"),
        (f"{O2M}.class_weight=1.5", "must be a number in [0, 1], got 1.5"),
        (f"{O2M}.class_weight=true", "must be a number in [0, 1], got true"),
        (f"{O2M}.class_weight=null", "must be a number in [0, 1], got null"),
        (f"{O2M}.class_weight.x=1", "must be a number in [0, 1], got a mapping"),
    ],
)
def test_wrong_class_weight_is_one_line(override: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe("ddetr_300q", [override])
    assert str(caught.value) == f"ddetr_300q: `overrides`: {O2M}.class_weight: {message}"


def test_contradiction_in_a_file_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "extends: ddetr_300q\nsupervision:\n  one_to_many:\n"
        "    iou_weight: 0.5\n    class_weight: 0.4\n"
    )
    with pytest.raises(RecipeError, match=rf"line 5: {O2M}\.class_weight: must be 1 - iou_weight"):
        load_recipe(path)


def test_stored_recipe_of_an_earlier_version_loads_equal_and_takes_overrides() -> None:
    recipe = load_recipe("ddetr_300q")
    stored = recipe_to_dict(recipe)
    assert "class_weight" not in stored["supervision"]["one_to_many"]
    stored["supervision"]["one_to_many"]["class_weight"] = 0.3
    assert recipe_from_dict(stored, "checkpoint") == recipe
    changed = recipe_from_dict(stored, "checkpoint", [f"{O2M}.iou_weight=0.5"])
    assert changed.supervision.one_to_many is not None
    assert changed.supervision.one_to_many.class_weight == 0.5
