"""Small models of every packaged recipe with query groups."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from msdetr.recipe import QueryGroupsRecipe, Recipe, load_recipe, packaged_recipes

NUM_QUERIES, NUM_HYBRID, NUM_GROUPS = 6, 9, 3
_FIELDS = {
    "model.backbone": "{name: resnet_tiny, weights: none, norm: group, frozen_stages: 0,"
    " stem_width: 8}",
    "model.width": 32,
    "model.heads": 2,
    "model.points": 2,
    "model.encoder_layers": 1,
    "model.decoder_layers": 2,
    "model.ffn_width": 32,
    "model.dropout": 0,
    "model.num_queries": NUM_QUERIES,
    "evaluation.detections_per_image": 5,
    "data.num_workers": 0,
}
_SIZES = {"hybrid": ("queries", NUM_HYBRID), "group": ("groups", NUM_GROUPS)}


def recipes_with_groups() -> list[str]:
    """Names of the packaged recipes that have query groups."""
    return [
        info.name
        for info in packaged_recipes()
        if load_recipe(info.path).model.query_groups != QueryGroupsRecipe()
    ]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that takes ``grouped_recipe`` for every packaged recipe with query groups."""
    if "grouped_recipe" in metafunc.fixturenames:
        metafunc.parametrize("grouped_recipe", recipes_with_groups())


@pytest.fixture(scope="session")
def small_recipe() -> Callable[..., Recipe]:
    """Load a packaged recipe, sized so that a step takes milliseconds; further overrides."""

    def load(name: str, *overrides: str) -> Recipe:
        groups = load_recipe(name).model.query_groups
        sizes = [
            f"model.query_groups.{group}.{field}={value}"
            for group, (field, value) in _SIZES.items()
            if getattr(groups, group) is not None
        ]
        fields = [f"{key}={value}" for key, value in _FIELDS.items()]
        return load_recipe(name, [*fields, *sizes, *overrides])

    return load
