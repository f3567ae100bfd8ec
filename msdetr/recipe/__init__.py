"""Recipes: pydantic schema, YAML loading and overrides. No torch."""

from __future__ import annotations

from . import assigners
from .data import AugmentationRecipe, DataRecipe
from .dump import recipe_to_commented_yaml, recipe_to_dict, recipe_to_yaml
from .loading import load_recipe, recipe_from_dict
from .model import BackboneRecipe, ModelRecipe
from .packaged import RecipeInfo, find_recipe, packaged_recipes
from .schema import Recipe
from .supervision import (
    CostRecipe,
    FocalRecipe,
    LossRecipe,
    OneToManyRecipe,
    SupervisionRecipe,
)
from .training import EvaluationRecipe, TrainRecipe

__all__ = [
    "AugmentationRecipe",
    "BackboneRecipe",
    "CostRecipe",
    "DataRecipe",
    "EvaluationRecipe",
    "FocalRecipe",
    "LossRecipe",
    "ModelRecipe",
    "OneToManyRecipe",
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
