"""Recipe section ``inspection``: what training keeps for looking at assignments."""

from __future__ import annotations

from pydantic import Field

from msdetr.recipe.section import Images, Section


class InspectionRecipe(Section):
    """Match traces during training, for ``msdetr stability``."""

    trace_every_epoch: bool = Field(
        default=False, description="Store a match trace after every epoch, in traces/ of the run."
    )
    num_images: Images = Field(
        default=200, ge=1, description="Validation images to trace, the first ones by id."
    )
