"""Recipe section `supervision.one_to_many.assigner`: how one-to-many pairs are found."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field

from msdetr.recipe.section import FilePath, Queries, Section, Weight

_TYPE = "Which assigner it is."


class AssignerSection(Section):
    """Base of the sections of assigners, which `type` tells apart."""

    def conflicts(self, num_queries: int) -> Iterator[tuple[str, str]]:  # noqa: ARG002
        """List the fields that do not fit a number of queries, each with what was expected."""
        yield from ()


class MsDetrRecipe(AssignerSection):
    """MS-DETR's own rule; its fields stand beside `assigner`."""

    type: Literal["ms_detr"] = Field(default="ms_detr", description=_TYPE)


class RepeatedHungarianRecipe(AssignerSection):
    """Every target several times in one Hungarian matching: the rule of Hybrid DETR."""

    type: Literal["repeated_hungarian"] = Field(description=_TYPE)
    copies: int = Field(default=6, ge=1, description="How often every target is matched.")
    class_weight: Weight = Field(default=2.0, description="Weight of the focal class cost.")
    l1_weight: Weight = Field(
        default=5.0, description="Weight of the L1 distance of (cx, cy, w, h)."
    )
    giou_weight: Weight = Field(default=2.0, description="Weight of the negative generalised IoU.")


class TaskAlignedRecipe(AssignerSection):
    """The best queries of every target by probability and IoU: the rule of TOOD."""

    type: Literal["task_aligned"] = Field(description=_TYPE)
    k: Queries = Field(default=13, ge=1, description="Queries per target at most.")
    class_power: float = Field(
        default=1.0, ge=0, description="Exponent of the class probability in the score."
    )
    iou_power: float = Field(default=6.0, ge=0, description="Exponent of the IoU in the score.")

    def conflicts(self, num_queries: int) -> Iterator[tuple[str, str]]:
        """List the fields that do not fit a number of queries, each with what was expected."""
        if self.k > num_queries:
            yield "k", f"must be at most model.num_queries = {num_queries}, got {self.k}"


class FileRecipe(AssignerSection):
    """An assigner in a Python file of one's own."""

    type: Literal["file"] = Field(default="file", description=_TYPE)
    file: FilePath = Field(description="Python file with the class.")
    class_name: str = Field(alias="class", min_length=1, description="Name of the class.")
    options: dict[str, Any] = Field(default={}, description="Keyword arguments of the class.")


AssignerRecipe = Annotated[
    MsDetrRecipe | RepeatedHungarianRecipe | TaskAlignedRecipe | FileRecipe,
    Field(discriminator="type"),
]
"""One of the assigners; `build_assigner` makes it."""
