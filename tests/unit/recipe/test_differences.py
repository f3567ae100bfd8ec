"""In which fields two recipes differ."""

from __future__ import annotations

from pathlib import Path

from msdetr.recipe import load_recipe
from msdetr.recipe.differences import (
    Difference,
    find_differences,
    find_settings_that_differ,
    load_compared,
)


def test_fields_are_named_with_both_values() -> None:
    first = load_recipe("shapes_tiny")
    second = load_recipe("shapes_tiny", ["train.epochs=7", "data.eval_size=96"])
    assert find_differences(first, second) == [
        Difference("data.eval_size", 160, 96),
        Difference("train.epochs", 4, 7),
    ]
    assert find_differences(first, load_recipe("shapes_tiny")) == []


def test_a_section_that_one_recipe_lacks_is_one_difference() -> None:
    first, second = load_recipe("shapes_tiny"), load_recipe("shapes_tiny_baseline")
    found = {each.key: each for each in find_differences(first, second)}
    assert found["supervision.one_to_many"].second is None
    assert found["supervision.one_to_many"].first["k"] == 2
    assert not [key for key in found if key.startswith("supervision.one_to_many.")]


def test_descriptions_are_no_settings() -> None:
    first, second = load_recipe("shapes_tiny"), load_recipe("shapes_tiny", ["description=mine"])
    assert [found.key for found in find_differences(first, second)] == ["description"]
    assert find_settings_that_differ(first, second) == []


def test_a_run_directory_stands_for_its_recipe(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("extends: shapes_tiny\ntrain: {seed: 7}\n")
    assert load_compared(str(tmp_path)).train.seed == 7
    assert load_compared("shapes_tiny") == load_recipe("shapes_tiny")
