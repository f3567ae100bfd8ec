"""Mean and standard deviation that come with the backbone's weights."""

from __future__ import annotations

from msdetr.errors import RecipeError
from msdetr.pretraining import normalization_of
from msdetr.recipe.schema import Recipe
from msdetr.recipe.yaml_source import Entry, RecipeProblem


def take_over_normalization(recipe: Recipe, tree: Entry) -> tuple[Recipe, list[RecipeProblem]]:
    """Fill in ``data.mean`` and ``data.std`` of the backbone's weights, unless they are given.

    Args:
        recipe: A valid recipe.
        tree: What it was made of, for the place of a problem.

    Returns:
        The recipe, and what keeps the numbers from being known.
    """
    missing = {"mean", "std"} - recipe.data.model_fields_set
    if not missing:
        return recipe, []
    backbone = recipe.model.backbone
    try:
        found = normalization_of(backbone.name, backbone.weights)
    except RecipeError as error:
        place = tree.place_of(error.source.split("."))
        return recipe, [RecipeProblem(place, error.source, p.message) for p in error.problems]
    if found is None:
        return recipe, []
    data = recipe.data.model_copy(update={name: getattr(found, name) for name in missing})
    return recipe.model_copy(update={"data": data}), []
