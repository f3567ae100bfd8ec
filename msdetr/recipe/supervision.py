"""Recipe section ``supervision``: how predictions are matched, and the weights of their losses."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from msdetr.recipe.assigners import AssignerRecipe, MsDetrRecipe
from msdetr.recipe.query_groups import (
    DenoisingSupervisionRecipe,
    GroupSupervisionRecipe,
    HybridSupervisionRecipe,
)
from msdetr.recipe.section import Fraction, Queries, Section, Weight


class CostRecipe(Section):
    """Weights of the Hungarian matching cost."""

    class_weight: Weight = Field(default=2.0, description="Weight of the focal class cost.")
    l1_weight: Weight = Field(
        default=5.0, description="Weight of the L1 distance of (cx, cy, w, h)."
    )
    giou_weight: Weight = Field(default=2.0, description="Weight of the negative generalised IoU.")


class ProposalsCostRecipe(CostRecipe):
    """Matching cost of proposals, whose anchors have no class."""

    class_weight: Weight = Field(default=0.0, description="Weight of the focal class cost.")


class LossRecipe(Section):
    """Weights of the loss terms of one branch."""

    class_weight: Weight = Field(default=2.0, description="Weight of the class loss.")
    box_weight: Weight = Field(default=5.0, description="Weight of the L1 box loss.")
    giou_weight: Weight = Field(default=2.0, description="Weight of the generalised IoU loss.")


class OneToOneLossRecipe(LossRecipe):
    """Loss weights of one-to-one supervision."""

    class_weight: Weight = Field(
        default=1.0,
        description="Weight of the class loss: 1 beside one-to-many, 2 in baselines.",
    )


class OneToOneRecipe(Section):
    """One-to-one supervision: Hungarian matching in every decoder layer."""

    cost: CostRecipe = Field(default=CostRecipe(), description="Weights of the matching cost.")
    loss: OneToOneLossRecipe = Field(
        default=OneToOneLossRecipe(), description="Weights of the losses."
    )


OF_ALL_ASSIGNERS = ("assigner", "loss")
"""Fields of one-to-many supervision that do not depend on the type of the assigner."""


class OneToManyRecipe(Section):
    """One-to-many supervision of the same queries.

    The score of a query for a target is (1 - iou_weight) * probability + iou_weight * IoU. These
    are the settings of MS-DETR's own rule, ``ms_detr``; an ``assigner`` of another type has its
    own.
    """

    k: Queries = Field(default=6, ge=1, description="Queries per target at most.")
    threshold: Fraction = Field(default=0.4, description="Score from which a query is positive.")
    iou_weight: Fraction = Field(default=0.7, description="Weight of the IoU in the score.")
    max_positive_fraction: float | None = Field(
        default=0.25,
        gt=0,
        le=1,
        description="Positives of an image at most, as a fraction of its queries; null: no cap.",
    )
    assigner: AssignerRecipe = Field(
        default=MsDetrRecipe(), description="How queries and targets are paired."
    )
    loss: LossRecipe = Field(default=LossRecipe(), description="Weights of the losses.")

    @property
    def class_weight(self) -> float:
        """Weight of the class probability in the score."""
        return round(1.0 - self.iou_weight, 12)

    @model_serializer(mode="wrap")
    def _leave_out_what_does_not_apply(
        self, serialize: SerializerFunctionWrapHandler
    ) -> dict[str, Any]:
        values: dict[str, Any] = serialize(self)
        if isinstance(self.assigner, MsDetrRecipe):
            return {key: value for key, value in values.items() if key != "assigner"}
        return {key: values[key] for key in OF_ALL_ASSIGNERS}


MS_DETR_FIELDS = frozenset(OneToManyRecipe.model_fields) - set(OF_ALL_ASSIGNERS)
"""Settings of `ms_detr`, which stand beside `assigner`."""


class ProposalsRecipe(Section):
    """Supervision of encoder proposals: matched by anchor, losses on predictions; one class."""

    match_on: Literal["anchors", "predictions"] = Field(
        default="anchors",
        description="Boxes that are matched: the proposals before any delta, or predicted ones"
        " (Hybrid DETR, with class_weight 2 in the cost).",
    )
    cost: ProposalsCostRecipe = Field(
        default=ProposalsCostRecipe(), description="Weights of the matching cost."
    )
    loss: LossRecipe = Field(default=LossRecipe(), description="Weights of the losses.")


class FocalRecipe(Section):
    """Sigmoid focal loss, also used by the class cost."""

    alpha: Fraction = Field(default=0.25, description="Weight of the positive class.")
    gamma: float = Field(
        default=2.0, ge=0, description="Focusing exponent, which down-weights easy examples."
    )


class SupervisionRecipe(Section):
    """The supervision branches."""

    one_to_one: OneToOneRecipe = Field(
        default=OneToOneRecipe(), description="One-to-one supervision."
    )
    one_to_many: OneToManyRecipe | None = Field(
        default=OneToManyRecipe(), description="One-to-many supervision; null in baselines."
    )
    proposals: ProposalsRecipe | None = Field(
        default=ProposalsRecipe(), description="Supervision of proposals; null in one-stage models."
    )
    hybrid: HybridSupervisionRecipe | None = Field(
        default=None, description="Supervision of the hybrid query group; null without one."
    )
    group: GroupSupervisionRecipe | None = Field(
        default=None, description="Supervision of independent query groups; null without any."
    )
    denoising: DenoisingSupervisionRecipe | None = Field(
        default=None, description="Supervision of denoising queries; null without any."
    )
    class_loss: Literal["focal", "varifocal"] = Field(
        default="focal",
        description="Class loss of all branches; varifocal makes the class probability of a pair"
        " learn the IoU of its box. The matching costs stay focal.",
    )
    focal: FocalRecipe = Field(
        default=FocalRecipe(),
        description="Focal loss of all branches, and focal class cost whatever the class loss.",
    )
