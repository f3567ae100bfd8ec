"""Recipe -> supervision: assigners, branches and losses."""

from __future__ import annotations

from msdetr.assignment import (
    HungarianAssigner,
    OneToManyAssigner,
    RepeatedHungarianAssigner,
    assign_together,
)
from msdetr.assignment.own_file import load_assigner
from msdetr.assignment.task_aligned import TaskAlignedAssigner
from msdetr.losses import (
    BranchRule,
    ClassLoss,
    Criterion,
    DenoisingRule,
    FocalLoss,
    GroupRule,
    LossWeights,
    Normalizer,
    Supervision,
    VarifocalLoss,
)
from msdetr.model.training_groups import name_group
from msdetr.recipe import (
    CostRecipe,
    DenoisingSupervisionRecipe,
    FocalRecipe,
    GroupLossRecipe,
    HybridSupervisionRecipe,
    LossRecipe,
    OneToManyRecipe,
    QueryGroupsRecipe,
    SupervisionRecipe,
    assigners,
)
from msdetr.structures import Assigner


def build_criterion(
    recipe: SupervisionRecipe, query_groups: QueryGroupsRecipe | None = None
) -> Criterion:
    """Compose the supervision branches and their losses.

    Args:
        recipe: How predictions are supervised.
        query_groups: Which query groups there are beside the primary one; None for no others.
    """
    scale, groups = _scale_groups(recipe, query_groups)
    primary = _group_rule(recipe, scale, with_one_to_many=True)
    if recipe.hybrid is not None:
        groups["hybrid"] = GroupRule(_hybrid_rule(recipe.hybrid, recipe))
    supervision = Supervision(
        assign=assign_together,
        one_to_one=primary.one_to_one,
        one_to_many=primary.one_to_many,
        proposals=primary.proposals,
        groups=groups,
        denoising=None if recipe.denoising is None else _denoising_rule(recipe.denoising),
    )
    return Criterion(supervision, _class_loss(recipe))


def build_assigner(recipe: OneToManyRecipe, focal: FocalRecipe) -> Assigner:
    """Make the assigner of one-to-many supervision; one in a file is read and executed.

    Raises:
        AssignerError: The file, its class or the options cannot be used.
    """
    match recipe.assigner:
        case assigners.MsDetrRecipe():
            return OneToManyAssigner(
                k=recipe.k,
                threshold=recipe.threshold,
                iou_weight=recipe.iou_weight,
                class_weight=recipe.class_weight,
                max_positive_fraction=recipe.max_positive_fraction,
            )
        case assigners.RepeatedHungarianRecipe() as chosen:
            return _repeated_hungarian(chosen, focal, chosen.copies)
        case assigners.TaskAlignedRecipe() as chosen:
            return TaskAlignedAssigner(chosen.k, chosen.class_power, chosen.iou_power)
        case assigners.FileRecipe() as chosen:
            return load_assigner(chosen.file, chosen.class_name, chosen.options)


def _class_loss(recipe: SupervisionRecipe) -> ClassLoss:
    if recipe.class_loss == "varifocal":
        return VarifocalLoss()
    return FocalLoss(recipe.focal.alpha, recipe.focal.gamma)


def _scale_groups(
    recipe: SupervisionRecipe, query_groups: QueryGroupsRecipe | None
) -> tuple[float, dict[str, GroupRule]]:
    """Scale of the primary group's weights, and the rules of the independent groups."""
    if recipe.group is None or query_groups is None or query_groups.group is None:
        return 1.0, {}
    number = query_groups.group.groups
    matched = recipe.one_to_many is not None and recipe.group.one_to_many == "matched"
    # One-to-many supervision of the primary group alone must not weigh G times its one-to-one.
    by_default = "mean" if matched or recipe.one_to_many is None else "primary_one"
    reduction = by_default if recipe.group.reduction == "auto" else recipe.group.reduction
    primary, other = (1 / number, 1 / number) if reduction == "mean" else (1.0, 1 / (number - 1))
    rule = _group_rule(recipe, other, with_one_to_many=matched)
    return primary, {name_group(index): rule for index in range(1, number)}


def _group_rule(recipe: SupervisionRecipe, scale: float, *, with_one_to_many: bool) -> GroupRule:
    many, proposals = recipe.one_to_many, recipe.proposals
    return GroupRule(
        one_to_one=BranchRule(
            _hungarian(recipe.one_to_one.cost, recipe.focal),
            _loss_weights(recipe.one_to_one.loss).scaled(scale),
        ),
        one_to_many=None
        if many is None or not with_one_to_many
        else BranchRule(
            build_assigner(many, recipe.focal),
            _loss_weights(many.loss).scaled(scale),
        ),
        proposals=None
        if proposals is None
        else BranchRule(
            _hungarian(proposals.cost, recipe.focal),
            _loss_weights(proposals.loss).scaled(scale),
            match_on=proposals.match_on,
        ),
    )


def _denoising_rule(recipe: DenoisingSupervisionRecipe) -> DenoisingRule:
    return DenoisingRule(_loss_weights(recipe.loss).scaled(recipe.scale), recipe.padding)


def _hybrid_rule(hybrid: HybridSupervisionRecipe, recipe: SupervisionRecipe) -> BranchRule:
    return BranchRule(
        _repeated_hungarian(recipe.one_to_one.cost, recipe.focal, hybrid.copies),
        _loss_weights(hybrid.loss).scaled(hybrid.scale),
        Normalizer(copies=hybrid.copies),
    )


def _repeated_hungarian(
    cost: CostRecipe | assigners.RepeatedHungarianRecipe, focal: FocalRecipe, copies: int
) -> RepeatedHungarianAssigner:
    return RepeatedHungarianAssigner(
        class_weight=cost.class_weight,
        l1_weight=cost.l1_weight,
        giou_weight=cost.giou_weight,
        alpha=focal.alpha,
        gamma=focal.gamma,
        copies=copies,
    )


def _hungarian(cost: CostRecipe, focal: FocalRecipe) -> HungarianAssigner:
    return HungarianAssigner(
        class_weight=cost.class_weight,
        l1_weight=cost.l1_weight,
        giou_weight=cost.giou_weight,
        alpha=focal.alpha,
        gamma=focal.gamma,
    )


def _loss_weights(loss: LossRecipe | GroupLossRecipe) -> LossWeights:
    return LossWeights(loss.class_weight, loss.box_weight, loss.giou_weight)
