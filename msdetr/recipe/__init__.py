"""Recipes: pydantic schema, YAML loading and overrides. No torch."""

from __future__ import annotations

from msdetr.recipe import assigners
from msdetr.recipe.data import AugmentationRecipe, DataRecipe
from msdetr.recipe.dump import recipe_to_commented_yaml, recipe_to_dict, recipe_to_yaml
from msdetr.recipe.loading import load_recipe, recipe_from_dict
from msdetr.recipe.model import BackboneRecipe, ModelRecipe
from msdetr.recipe.packaged import RecipeInfo, find_recipe, packaged_recipes
from msdetr.recipe.query_groups import (
    DenoisingSupervisionRecipe,
    GroupLossRecipe,
    HybridSupervisionRecipe,
    QueryGroupsRecipe,
)
from msdetr.recipe.schema import Recipe
from msdetr.recipe.supervision import (
    CostRecipe,
    FocalRecipe,
    LossRecipe,
    OneToManyRecipe,
    SupervisionRecipe,
)
from msdetr.recipe.training import EvaluationRecipe, TrainRecipe

__all__ = [
    "AugmentationRecipe",
    "BackboneRecipe",
    "CostRecipe",
    "DataRecipe",
    "DenoisingSupervisionRecipe",
    "EvaluationRecipe",
    "FocalRecipe",
    "GroupLossRecipe",
    "HybridSupervisionRecipe",
    "LossRecipe",
    "ModelRecipe",
    "OneToManyRecipe",
    "QueryGroupsRecipe",
    "Recipe",
    "RecipeInfo",
    "SupervisionRecipe",
    "TrainRecipe",
    "assigners",
    "find_recipe",
    "load_recipe",
    "packaged_recipes",
    "recipe_from_dict",
    "recipe_to_commented_yaml",
    "recipe_to_dict",
    "recipe_to_yaml",
]
