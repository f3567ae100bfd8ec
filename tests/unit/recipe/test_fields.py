"""Every field of a recipe, described."""

from __future__ import annotations

from typing import Any

import pytest

from msdetr.recipe import load_recipe, packaged_recipes, recipe_to_dict
from msdetr.recipe.fields import list_fields, list_settings
from msdetr.recipe.schema import Recipe

FIELDS = {field.key: field for field in list_fields()}


def test_every_field_is_described() -> None:
    assert len(FIELDS) > 150
    assert [field.key for field in FIELDS.values() if not field.description.endswith(".")] == []


def test_defaults_are_those_of_a_recipe_without_fields() -> None:
    def walk(tree: dict[str, Any], prefix: str) -> None:
        for name, value in tree.items():
            field = FIELDS[prefix + name]
            if field.is_section and isinstance(value, dict):
                walk(value, f"{prefix}{name}.")
            else:
                assert field.default == value, field.key

    walk(recipe_to_dict(Recipe()), "")


@pytest.mark.parametrize(
    ("key", "expected", "unit", "default"),
    [
        ("train.lr", "a number > 0", "", 2e-4),
        ("train.batch_size", "an integer >= 1", "images", 16),
        ("train.max_seconds", "a number > 0 or null", "s", None),
        (
            "data.augmentation.train_sizes",
            "a list of at least 1, each an integer in [32, 10000]",
            "px",
            list(range(480, 801, 32)),
        ),
        ("train.lr_drop_epochs", "a list, each an integer >= 1", "epochs", [11]),
        ("model.suppressor.learned_keys", "an integer >= 1", "", 10),
        (
            "supervision.one_to_many.assigner.type",
            "ms_detr or repeated_hungarian or task_aligned or file",
            "",
            "ms_detr",
        ),
    ],
)
def test_field(key: str, expected: str, unit: str, default: object) -> None:
    field = FIELDS[key]
    assert (field.expected, field.unit, field.default) == (expected, unit, default)


def test_choices_and_required_fields() -> None:
    assert FIELDS["train.schedule"].choices == ("step", "cosine")
    assert FIELDS["train.compile"].choices == ("true", "false")
    assert FIELDS["train.lr"].choices == ()
    required = [field.key for field in FIELDS.values() if field.is_required]
    section = "supervision.one_to_many.assigner"
    assert required == [f"{section}.file", f"{section}.class"]


def test_fields_of_one_type_say_so() -> None:
    section = "supervision.one_to_many.assigner"
    types = {
        key.rpartition(".")[2]: field.of_type
        for key, field in FIELDS.items()
        if key.startswith(f"{section}.")
    }
    assert types["type"] == ""
    assert (types["copies"], types["k"]) == ("repeated_hungarian", "task_aligned")
    assert (types["file"], types["class"]) == ("file", "file")
    assert {field.of_type for key, field in FIELDS.items() if not key.startswith(section)} == {""}


def test_settings_are_those_of_the_packaged_files() -> None:
    settings = list(list_settings())
    assert {key for key, _, _ in settings} <= set(FIELDS)
    queries = {file: value for key, file, value in settings if key == "model.num_queries"}
    assert queries["_base/ddetr"] == 300
    assert queries["ddetr_pp_900q"] == 900
    assert ("supervision.one_to_many", "_base/ddetr", None) in settings


def test_every_field_that_a_recipe_changes_is_set_somewhere() -> None:
    settings = {key for key, _, _ in list_settings()}
    default = recipe_to_dict(Recipe())["train"]
    for info in packaged_recipes():
        train = recipe_to_dict(load_recipe(info.path))["train"]
        changed = {f"train.{name}" for name in train if train[name] != default[name]}
        assert {key for key in changed if not FIELDS[key].is_section} <= settings, info.name
