"""Recipe -> supervision: assigners, branches and losses."""

from __future__ import annotations

from msdetr.assignment import HungarianAssigner, OneToManyAssigner, assign_together
from msdetr.losses import BranchRule, Criterion, LossWeights, Supervision
from msdetr.recipe import CostRecipe, FocalRecipe, LossRecipe, SupervisionRecipe


def build_criterion(recipe: SupervisionRecipe) -> Criterion:
    """Compose the supervision branches and their losses."""
    many, proposals = recipe.one_to_many, recipe.proposals
    supervision = Supervision(
        assign=assign_together,
        one_to_one=BranchRule(
            _hungarian(recipe.one_to_one.cost, recipe.focal), _loss_weights(recipe.one_to_one.loss)
        ),
        one_to_many=None
        if many is None
        else BranchRule(
            OneToManyAssigner(
                k=many.k,
                threshold=many.threshold,
                iou_weight=many.iou_weight,
                class_weight=many.class_weight,
                max_positive_fraction=many.max_positive_fraction,
            ),
            _loss_weights(many.loss),
        ),
        proposals=None
        if proposals is None
        else BranchRule(_hungarian(proposals.cost, recipe.focal), _loss_weights(proposals.loss)),
    )
    return Criterion(supervision, alpha=recipe.focal.alpha, gamma=recipe.focal.gamma)


def _hungarian(cost: CostRecipe, focal: FocalRecipe) -> HungarianAssigner:
    return HungarianAssigner(
        class_weight=cost.class_weight,
        l1_weight=cost.l1_weight,
        giou_weight=cost.giou_weight,
        alpha=focal.alpha,
        gamma=focal.gamma,
    )


def _loss_weights(loss: LossRecipe) -> LossWeights:
    return LossWeights(loss.class_weight, loss.box_weight, loss.giou_weight)
