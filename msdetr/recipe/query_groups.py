"""Query groups that train beside the primary one: what they are, and how they are supervised."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from msdetr.recipe.section import Fraction, Queries, Section, Weight


class HybridQueriesRecipe(Section):
    """A second group from the primary one's ranking (Hybrid DETR)."""

    queries: Queries = Field(
        default=1500, ge=1, description="Queries at most; fewer where there are too few cells."
    )


class IndependentGroupsRecipe(Section):
    """Groups of num_queries queries, each with proposals of its own (Group DETR)."""

    groups: int = Field(default=11, ge=2, description="Groups in all, the primary one included.")


class DenoisingRecipe(Section):
    """Queries made of targets with noise (DN-DETR; contrastive: DINO)."""

    contrastive: bool = Field(
        default=True,
        description="Pair every slot with a negative one, which is to find nothing.",
    )
    budget: int | None = Field(
        default=None,
        ge=1,
        description="Groups are this over the most targets of an image of the batch, at least 1.",
    )
    groups: int | None = Field(
        default=None, ge=1, description="Groups, whatever the targets; instead of budget."
    )
    label_redraw: Fraction = Field(
        default=0.25,
        description="Probability that a slot's class is drawn anew, uniformly over all classes;"
        " half of DINO's label_noise_ratio.",
    )
    box_noise: float = Field(
        default=1.0,
        ge=0,
        le=10,
        description="Largest shift of a box's corners (contrastive) or of its centre, in halves of"
        " its sides; the largest relative change of its sides if not contrastive.",
    )
    max_targets: int | None = Field(
        default=None,
        ge=1,
        description="Targets of an image that are noised at most, chosen at random; null: all.",
    )


class QueryGroupsRecipe(Section):
    """What trains beside the primary queries; nothing of it is left at inference."""

    hybrid: HybridQueriesRecipe | None = Field(
        default=None, description="A second, larger group with repeated targets; null: none."
    )
    group: IndependentGroupsRecipe | None = Field(
        default=None, description="Independent groups; null: none."
    )
    denoising: DenoisingRecipe | None = Field(
        default=None, description="Queries made of noised targets; null: none."
    )


class GroupLossRecipe(Section):
    """Weights of the loss terms of a query group."""

    class_weight: Weight = Field(default=2.0, description="Weight of the focal class loss.")
    box_weight: Weight = Field(default=5.0, description="Weight of the L1 box loss.")
    giou_weight: Weight = Field(default=2.0, description="Weight of the generalised IoU loss.")


class DenoisingLossRecipe(GroupLossRecipe):
    """Weights of the loss terms of denoising queries."""

    class_weight: Weight = Field(default=1.0, description="Weight of the focal class loss.")


class HybridSupervisionRecipe(Section):
    """Supervision of the hybrid group: one Hungarian matching with repeated targets."""

    copies: int = Field(default=6, ge=1, description="How often every target is repeated.")
    scale: Weight = Field(default=1.0, description="Factor of all weights below.")
    loss: GroupLossRecipe = Field(default=GroupLossRecipe(), description="Weights of the losses.")


class GroupSupervisionRecipe(Section):
    """Supervision of independent groups: each has the primary group's one-to-one supervision."""

    reduction: Literal["auto", "mean", "primary_one"] = Field(
        default="auto",
        description="mean: every group weighs 1/groups; primary_one: the primary group 1, every"
        " other 1/(groups - 1); auto: primary_one where one-to-many supervision is for the primary"
        " group alone, else mean.",
    )
    one_to_many: Literal["primary", "matched"] = Field(
        default="primary",
        description="Which groups one-to-many supervision is for, if there is any: the primary"
        " one, or all.",
    )


class DenoisingSupervisionRecipe(Section):
    """Supervision of denoising queries, whose pairs are fixed."""

    scale: Weight = Field(default=1.0, description="Factor of all weights below.")
    padding: Literal["background", "ignore"] = Field(
        default="background",
        description="Slots of images with fewer targets than others: background (DINO), or in no"
        " loss (DN-DETR).",
    )
    loss: DenoisingLossRecipe = Field(
        default=DenoisingLossRecipe(), description="Weights of the losses."
    )
