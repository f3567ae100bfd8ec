"""The recipe: everything that decides what is trained and how, as one frozen value.

``Recipe()`` without arguments is the published main model, MS-DETR on Deformable-DETR with 300
queries.
"""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from msdetr.recipe.conflicts import find_conflicts
from msdetr.recipe.data import DataRecipe
from msdetr.recipe.inspection import InspectionRecipe
from msdetr.recipe.model import ModelRecipe
from msdetr.recipe.section import Section
from msdetr.recipe.supervision import SupervisionRecipe
from msdetr.recipe.training import EvaluationRecipe, TrainRecipe

CONFLICTS = "recipe_conflicts"
"""Error type under which pydantic reports fields that do not fit together."""


class Recipe(Section):
    """A whole recipe; fields that do not fit together are rejected."""

    description: str = Field(
        default="", description="What it is and what it reproduces; the first line is the summary."
    )
    model: ModelRecipe = Field(default=ModelRecipe(), description="Architecture.")
    supervision: SupervisionRecipe = Field(
        default=SupervisionRecipe(), description="Matching and loss weights."
    )
    data: DataRecipe = Field(default=DataRecipe(), description="Data set and image sizes.")
    train: TrainRecipe = Field(default=TrainRecipe(), description="Optimisation.")
    evaluation: EvaluationRecipe = Field(default=EvaluationRecipe(), description="Evaluation.")
    inspection: InspectionRecipe = Field(
        default=InspectionRecipe(), description="Match traces during training."
    )

    @model_validator(mode="after")
    def _reject_conflicts(self) -> Self:
        conflicts = find_conflicts(self.model, self.supervision, self.data, self.train)
        if conflicts:
            text = "; ".join(f"{conflict.key} {conflict.message}" for conflict in conflicts)
            raise PydanticCustomError(CONFLICTS, "{text}", {"text": text, "conflicts": conflicts})
        return self
