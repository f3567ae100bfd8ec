"""Properties over random recipes: round trips, and no exception but RecipeError."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from msdetr.errors import RecipeError
from msdetr.recipe import (
    Recipe,
    load_recipe,
    packaged_recipes,
    recipe_from_dict,
    recipe_to_commented_yaml,
    recipe_to_dict,
    recipe_to_yaml,
)

NAMES = [info.name for info in packaged_recipes()]
TREES = {name: recipe_to_dict(load_recipe(name)) for name in NAMES}

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 2000),
    st.integers(),
    st.floats(),
    st.floats(0, 1),
    st.text(max_size=8),
    st.sampled_from(["a", "baseline", "none", "no", "1e-4", "resnet18", "resnet_tiny", "fp16"]),
)
values = st.one_of(
    scalars,
    st.lists(scalars, max_size=4),
    st.dictionaries(st.text(max_size=6), scalars, max_size=3),
)


def paths(tree: dict[str, Any], prefix: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = []
    for key, value in tree.items():
        found.append((*prefix, key))
        if isinstance(value, dict):
            found += paths(value, (*prefix, key))
    return found


@st.composite
def mutated_trees(draw: st.DrawFn) -> dict[str, Any]:
    tree = copy.deepcopy(TREES[draw(st.sampled_from(NAMES))])
    for _ in range(draw(st.integers(1, 4))):
        *parents, key = draw(st.sampled_from(paths(tree)))
        section = tree
        for parent in parents:
            section = section[parent]
        action = draw(st.sampled_from(["set", "set", "drop", "add"]))
        if action == "drop" and len(paths(tree)) > 1:
            del section[key]
        else:
            section[draw(st.text(max_size=6)) if action == "add" else key] = draw(values)
    return tree


def accept_or_refuse(path: Path, overrides: list[str]) -> Recipe | None:
    try:
        return load_recipe(path, overrides)
    except RecipeError:
        return None


@pytest.mark.parametrize("name", NAMES)
def test_packaged_recipe_survives_dump_and_load(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name)
    path = tmp_path / "dumped.yaml"
    path.write_text(recipe_to_commented_yaml(recipe, name), encoding="utf-8")
    assert load_recipe(path) == recipe


@settings(max_examples=80, deadline=None)
@given(tree=mutated_trees())
def test_mutated_recipe_is_accepted_or_refused(
    tree: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "mutated.yaml"
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    recipe = accept_or_refuse(path, [])
    if recipe is not None:
        path.write_text(recipe_to_yaml(recipe), encoding="utf-8")
        assert load_recipe(path) == recipe
        assert recipe_from_dict(recipe_to_dict(recipe), "values") == recipe


@settings(max_examples=60, deadline=None)
@given(
    key=st.one_of(
        st.sampled_from(paths(TREES["shapes_tiny"])).map(".".join),
        st.text(alphabet="abc._=", max_size=6),
    ),
    value=st.one_of(st.text(max_size=10), values.map(yaml.safe_dump)),
)
def test_override_is_accepted_or_refused(key: str, value: str) -> None:
    path = Path("shapes_tiny")
    recipe = accept_or_refuse(path, [f"{key}={value}"])
    if recipe is not None:
        assert load_recipe("shapes_tiny", [f"{key}={value}"]) == recipe


@settings(max_examples=60, deadline=None)
@given(content=st.one_of(st.text(max_size=80), st.binary(max_size=80)))
def test_any_file_is_accepted_or_refused(
    content: str | bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    encoded = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
    path.write_bytes(encoded)
    accept_or_refuse(path, [])


@settings(max_examples=60, deadline=None)
@given(text=st.text(max_size=40))
@example(text="\x85")
@example(text="a\x85 b\nc")
@example(text="\u2028")
def test_any_description_and_path_survive_a_round_trip(
    text: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "description.yaml"
    recipe = recipe_from_dict({"description": text, "data": {"root": f"x{text}"}}, "values")
    path.write_text(recipe_to_commented_yaml(recipe, "values"), encoding="utf-8")
    assert load_recipe(path) == recipe


@pytest.mark.parametrize(
    "text", ["no", "1e-4", "null", "~", "2026-01-02", "12", "0x1", "1:30", "", "# x"]
)
def test_dumped_text_is_text_to_any_yaml_reader(text: str) -> None:
    recipe = recipe_from_dict({"description": text}, "values")
    assert yaml.safe_load(recipe_to_yaml(recipe))["description"] == text
