"""Sections of query groups that do not fit together, each with one line that says where."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from msdetr.errors import RecipeError
from msdetr.recipe import Recipe, load_recipe

# What it is about: parent, lines after "extends", place and message.
CONFLICTS = {
    "hybrid with group": (
        "shapes_tiny_group",
        "model: {query_groups: {hybrid: {queries: 20}}}\nsupervision: {hybrid: {copies: 2}}",
        "line 2",
        "model.query_groups.hybrid: must be null where model.query_groups.group is a mapping,"
        " got a mapping",
    ),
    "hybrid in the model only": (
        "shapes_tiny",
        "model: {query_groups: {hybrid: {queries: 20}}}",
        "line 2",
        "supervision.hybrid: must be a mapping where model.query_groups.hybrid is one, got null",
    ),
    "hybrid in the supervision only": (
        "shapes_tiny",
        "supervision: {hybrid: {copies: 2}}",
        "line 2",
        "supervision.hybrid: must be null where model.query_groups.hybrid is null, got a mapping",
    ),
    "groups in the model only": (
        "shapes_tiny",
        "model: {query_groups: {group: {groups: 2}}}",
        "line 2",
        "supervision.group: must be a mapping where model.query_groups.group is one, got null",
    ),
    "groups in the supervision only": (
        "shapes_tiny",
        "supervision: {group: {reduction: mean, one_to_many: matched}}",
        "line 2",
        "supervision.group: must be null where model.query_groups.group is null, got a mapping",
    ),
    "denoising in the model only": (
        "shapes_tiny",
        "model: {query_groups: {denoising: {budget: 20}}}",
        "line 2",
        "supervision.denoising: must be a mapping where model.query_groups.denoising is one,"
        " got null",
    ),
    "denoising in the supervision only": (
        "shapes_tiny",
        "supervision: {denoising: {padding: ignore}}",
        "line 2",
        "supervision.denoising: must be null where model.query_groups.denoising is null,"
        " got a mapping",
    ),
    "denoising with points": (
        "shapes_tiny_cdn",
        "model: {two_stage: false, mixed_query_selection: false}\nsupervision: {proposals: null}",
        "shapes_tiny_cdn.yaml line 7",
        "model.query_groups.denoising: must be null where model.two_stage is false (references"
        " have no size there), got a mapping",
    ),
    "neither budget nor groups": (
        "shapes_tiny",
        "model: {query_groups: {denoising: {contrastive: true}}}\nsupervision: {denoising: {}}",
        "line 2",
        "model.query_groups.denoising: must have exactly one of budget and groups, got neither",
    ),
    "budget and groups": (
        "shapes_tiny_cdn",
        "model: {query_groups: {denoising: {groups: 3}}}",
        "line 2",
        "model.query_groups.denoising.groups: must be null where"
        " model.query_groups.denoising.budget is 20, got 3",
    ),
    "mean beside one-to-many supervision of the primary group": (
        "shapes_tiny_ms_group",
        "supervision: {group: {reduction: mean}}",
        "line 2",
        "supervision.group.reduction: must be primary_one where supervision.group.one_to_many is"
        " primary (or let supervision.group.one_to_many be matched): the primary group's"
        " one-to-one supervision would weigh 1/groups beside its one-to-many supervision, got mean",
    ),
    "primary_one beside one-to-many supervision of all groups": (
        "shapes_tiny_ms_group",
        "supervision: {group: {reduction: primary_one, one_to_many: matched}}",
        "line 2",
        "supervision.group.reduction: must be mean where supervision.group.one_to_many is matched"
        " (or let supervision.group.one_to_many be primary), got primary_one",
    ),
}


@pytest.mark.parametrize("name", CONFLICTS)
def test_conflict_is_one_line_with_file_and_line(name: str, tmp_path: Path) -> None:
    parent, text, place, expected = CONFLICTS[name]
    file = tmp_path / "mine.yaml"
    file.write_text(f"extends: {parent}\n{text}\n")
    with pytest.raises(RecipeError) as caught:
        load_recipe(file)
    (problem,) = caught.value.problems
    assert (problem.where, problem.message) == (place, expected)
    assert str(caught.value) == f"{file}: {place}: {expected}"


@pytest.mark.parametrize(
    "overrides",
    [
        ["supervision.group.one_to_many=matched"],
        ["supervision.group={reduction: mean, one_to_many: matched}"],
        ["supervision.group.reduction=primary_one"],
        ["model.query_groups.group=null", "supervision.group=null"],
    ],
)
def test_combination_that_works(overrides: list[str]) -> None:
    load_recipe("shapes_tiny_ms_group", overrides)


def test_mean_without_one_to_many_supervision_works() -> None:
    load_recipe("shapes_tiny_group", ["supervision.group.reduction=mean"])


@pytest.mark.parametrize(
    ("recipe", "override", "message"),
    [
        ("shapes_tiny_hybrid", "model.query_groups.hybrid.queries=0", "queries"),
        ("shapes_tiny_hybrid", "supervision.hybrid.copies=0", "copies"),
        ("shapes_tiny_group", "model.query_groups.group.groups=1", "groups"),
        ("shapes_tiny_group", "supervision.group.reduction=sum", "reduction"),
        ("shapes_tiny_cdn", "model.query_groups.denoising.label_redraw=1.5", "label_redraw"),
        ("shapes_tiny_cdn", "model.query_groups.denoising.box_noise=-1", "box_noise"),
        ("shapes_tiny_cdn", "model.query_groups.denoising.max_targets=0", "max_targets"),
        ("shapes_tiny_cdn", "supervision.denoising.scale=-1", "scale"),
    ],
)
def test_field_out_of_range(recipe: str, override: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(recipe, [override])
    (problem,) = caught.value.problems
    assert message in problem.message


def test_description_says_composition_or_has_no_mixed_supervision(
    grouped_recipe: str, small_recipe: Callable[..., Recipe]
) -> None:
    recipe = small_recipe(grouped_recipe)
    mixed = recipe.supervision.one_to_many is not None
    assert mixed == ("MS-DETR" in recipe.description or "with mixed" in recipe.description)
    if mixed and not grouped_recipe.startswith("shapes_tiny"):
        assert "composition" in recipe.description
