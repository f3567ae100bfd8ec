"""The composition root: recipes in, objects out. Nothing else knows both sides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from msdetr.assignment import (
    HungarianAssigner,
    OneToManyAssigner,
    RepeatedHungarianAssigner,
    assign_together,
)
from msdetr.data import shapes
from msdetr.data.batching import Collator
from msdetr.data.coco_index import CocoIndex, CocoSplit, locate_split, read_coco
from msdetr.data.denoising import DenoisingNoise
from msdetr.data.labels import LabelSpace
from msdetr.data.transforms import EvalTransform, TrainTransform
from msdetr.engine.optimizer import ParameterGroup
from msdetr.engine.schedule import Schedule
from msdetr.losses import (
    BranchRule,
    Criterion,
    DenoisingRule,
    GroupRule,
    LossWeights,
    Normalizer,
    Supervision,
)
from msdetr.model import (
    Backbone,
    BoxHead,
    ClassHead,
    Decoder,
    DecoderLayer,
    DenoisingQueries,
    DetectionModel,
    Encoder,
    EncoderLayer,
    HybridQueries,
    IndependentGroups,
    LayerOrder,
    LayerSizes,
    LearnedQueries,
    Neck,
    OneToManySource,
    TrainingGroups,
    TwoStageQueries,
)
from msdetr.model.parameter_groups import parameter_group
from msdetr.model.pretrained import load_backbone_weights
from msdetr.model.training_groups import name_group
from msdetr.recipe import (
    BackboneRecipe,
    CostRecipe,
    DataRecipe,
    DenoisingSupervisionRecipe,
    FocalRecipe,
    GroupLossRecipe,
    HybridSupervisionRecipe,
    LossRecipe,
    ModelRecipe,
    QueryGroupsRecipe,
    Recipe,
    SupervisionRecipe,
    TrainRecipe,
)

OneToManyGroups = Literal["primary", "matched"]

_PLACEMENTS = {
    "baseline": (LayerOrder.SELF_ATTENTION_FIRST, OneToManySource.NONE),
    "a": (LayerOrder.SELF_ATTENTION_FIRST, OneToManySource.LAYER_OUTPUT),
    "b": (LayerOrder.CROSS_ATTENTION_FIRST, OneToManySource.LAYER_OUTPUT),
    "c": (LayerOrder.CROSS_ATTENTION_FIRST, OneToManySource.FIRST_ATTENTION),
    "d": (LayerOrder.SELF_ATTENTION_FIRST, OneToManySource.FIRST_ATTENTION),
}
# Points carry no size: without a bias every first box would cover half the image.
_SIZE_BIAS_OF_POINTS = -2.0


def build_model(
    recipe: ModelRecipe,
    num_classes: int,
    *,
    checkpoint_encoder: bool = False,
    one_to_many_groups: OneToManyGroups = "primary",
) -> DetectionModel:
    """Compose a model with random weights.

    Args:
        recipe: Architecture.
        num_classes: K.
        checkpoint_encoder: Recompute encoder layers in the backward pass.
        one_to_many_groups: Whether the one-to-many branch runs for the primary group or for all
            independent ones; supervision decides that.
    """
    backbone = _build_backbone(recipe.backbone)
    class_head = ClassHead(recipe.width, num_classes, prior=recipe.class_prior)
    box_head = BoxHead(recipe.width)
    return DetectionModel(
        backbone=backbone,
        neck=Neck(backbone.channels, recipe.width, recipe.levels),
        encoder=_build_encoder(recipe, checkpoint_encoder=checkpoint_encoder),
        query_source=_build_query_source(recipe, class_head, box_head),
        decoder=Decoder(
            layers=[_build_decoder_layer(recipe) for _ in range(recipe.decoder_layers)],
            class_head=class_head,
            box_head=box_head,
            iterative_refinement=recipe.iterative_refinement,
            look_forward_twice=recipe.look_forward_twice,
            first_size_bias=0.0 if recipe.two_stage else _SIZE_BIAS_OF_POINTS,
        ),
        # Last, so that all other weights start as they do without such groups.
        training_groups=_build_training_groups(recipe, class_head, box_head, one_to_many_groups),
    )


def load_pretrained_backbone(model: DetectionModel, recipe: BackboneRecipe) -> None:
    """Load the backbone weights that the recipe names, if any.

    Raises:
        CheckpointError: They cannot be fetched, or do not fit.
    """
    weights = load_backbone_weights(recipe.name, recipe.weights)
    if weights is not None:
        model.backbone.load_weights(weights, recipe.weights)


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
    return Criterion(supervision, alpha=recipe.focal.alpha, gamma=recipe.focal.gamma)


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
            OneToManyAssigner(
                k=many.k,
                threshold=many.threshold,
                iou_weight=many.iou_weight,
                class_weight=many.class_weight,
                max_positive_fraction=many.max_positive_fraction,
            ),
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
    cost, focal = recipe.one_to_one.cost, recipe.focal
    return BranchRule(
        RepeatedHungarianAssigner(
            class_weight=cost.class_weight,
            l1_weight=cost.l1_weight,
            giou_weight=cost.giou_weight,
            alpha=focal.alpha,
            gamma=focal.gamma,
            copies=hybrid.copies,
        ),
        _loss_weights(hybrid.loss).scaled(hybrid.scale),
        Normalizer(copies=hybrid.copies),
    )


def build_parameter_groups(model: DetectionModel, recipe: TrainRecipe) -> dict[str, ParameterGroup]:
    """Divide the trainable parameters by learning rate; the base group comes first."""
    rates = {
        "base": recipe.lr,
        "backbone": recipe.backbone_lr,
        "linear_projection": recipe.lr * recipe.linear_projection_lr_factor,
    }
    trainable = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    return {
        group: ParameterGroup([p for name, p in trainable if parameter_group(name) == group], lr)
        for group, lr in rates.items()
    }


def build_schedule(recipe: TrainRecipe, steps_per_epoch: int) -> Schedule:
    """Make the learning-rate schedule of a run."""
    return Schedule(
        kind=recipe.schedule,
        drop_epochs=recipe.lr_drop_epochs,
        drop_factor=recipe.lr_drop_factor,
        warmup_steps=recipe.warmup_steps,
        total_steps=recipe.epochs * steps_per_epoch,
    )


def read_split(
    recipe: DataRecipe, split: str, progress: shapes.Progress | None = None
) -> CocoIndex:
    """Read the annotations of "train" or "val", generating the embedded data set if needed.

    Args:
        recipe: Names the data set.
        split: "train" or "val".
        progress: Told how many images are generated, and of how many.

    Raises:
        DataError: Something is missing or malformed.
    """
    located = locate_files(recipe, split, progress)
    return limit_split(recipe, split, read_coco(located.images_dir, located.annotations_file))


def locate_files(
    recipe: DataRecipe, split: str, progress: shapes.Progress | None = None
) -> CocoSplit:
    """Find the files of "train" or "val", generating the embedded data set if needed.

    Args:
        recipe: Names the data set.
        split: "train" or "val".
        progress: Told how many images are generated, and of how many.

    Raises:
        DataError: The data set is missing or cannot be generated.
    """
    chosen = recipe.train if split == "train" else recipe.val
    root: Path | None = recipe.root
    if recipe.source == "shapes":
        num_train, num_val = recipe.shapes.num_train, recipe.shapes.num_val
        folder = root or shapes.default_folder(num_train, num_val)
        root = shapes.ensure(folder, num_train, num_val, progress)
    return locate_split(split, root=root, images=chosen.images, annotations=chosen.annotations)


def limit_split(recipe: DataRecipe, split: str, index: CocoIndex) -> CocoIndex:
    """Keep the images of a split that the recipe uses."""
    chosen = recipe.train if split == "train" else recipe.val
    return index if chosen.limit is None else index.limit(chosen.limit)


def build_label_space(recipe: DataRecipe, index: CocoIndex) -> LabelSpace:
    """Map the categories of an annotation file to label indices.

    Raises:
        DataError: The recipe's label space has no place for a category.
    """
    match recipe.label_space:
        case "coco91":
            return LabelSpace.coco91(index.categories, str(index.annotations_file))
        case "contiguous":
            return LabelSpace.contiguous(index.categories)


def build_train_transform(recipe: DataRecipe) -> TrainTransform:
    """Make the augmentation."""
    chosen = recipe.augmentation
    return TrainTransform(
        flip_probability=chosen.flip_probability,
        train_sizes=chosen.train_sizes,
        max_size=chosen.max_size,
        crop_probability=chosen.crop_probability,
        crop_pre_sizes=chosen.crop_pre_sizes,
        crop_min=chosen.crop_min,
        crop_max=chosen.crop_max,
    )


def build_eval_transform(recipe: DataRecipe) -> EvalTransform:
    """Make the resize of evaluation."""
    return EvalTransform(size=recipe.eval_size, max_size=recipe.eval_max_size)


def build_collator(recipe: Recipe, model: DetectionModel) -> Collator:
    """Make what turns samples into batches for a model of this recipe."""
    return Collator(
        mean=recipe.data.mean,
        std=recipe.data.std,
        min_cells=recipe.model.num_queries if recipe.model.two_stage else 1,
        strides=model.strides,
        pad_multiple=recipe.data.pad_multiple,
    )


def build_train_collator(
    recipe: Recipe, model: DetectionModel, label_space: LabelSpace
) -> Collator:
    """Make the collator of training, which also noises targets for denoising queries."""
    return replace(build_collator(recipe, model), noise=build_noise(recipe, label_space.labels))


def build_noise(recipe: Recipe, labels: Sequence[int]) -> DenoisingNoise | None:
    """Make what noises targets for denoising queries; None where there are none.

    Args:
        recipe: Kind and extent of the noise, and the seed.
        labels: Label indices that classes of the data have.
    """
    denoising = recipe.model.query_groups.denoising
    if denoising is None:
        return None
    return DenoisingNoise(
        contrastive=denoising.contrastive,
        budget=denoising.budget,
        groups=denoising.groups,
        label_redraw=denoising.label_redraw,
        box_noise=denoising.box_noise,
        max_targets=denoising.max_targets,
        labels=tuple(labels),
        seed=recipe.train.seed,
    )


def _build_backbone(recipe: BackboneRecipe) -> Backbone:
    # Only resnet_tiny has a stem width; the schema fills it in there and forbids it elsewhere.
    width = {} if recipe.stem_width is None else {"stem_width": recipe.stem_width}
    return Backbone(
        name=recipe.name,
        norm=recipe.norm,
        frozen_stages=recipe.frozen_stages,
        dilation=recipe.dilation,
        **width,
    )


def _build_encoder(recipe: ModelRecipe, *, checkpoint_encoder: bool) -> Encoder:
    layers = [EncoderLayer(_layer_sizes(recipe)) for _ in range(recipe.encoder_layers)]
    return Encoder(
        layers=layers,
        width=recipe.width,
        levels=recipe.levels,
        temperature=recipe.position_temperature,
        checkpoint_layers=checkpoint_encoder,
    )


def _build_query_source(
    recipe: ModelRecipe, class_head: ClassHead, box_head: BoxHead
) -> LearnedQueries | TwoStageQueries:
    if not recipe.two_stage:
        return LearnedQueries(width=recipe.width, num_queries=recipe.num_queries)
    return TwoStageQueries(
        width=recipe.width,
        num_queries=recipe.num_queries,
        class_head=class_head,
        box_head=box_head,
        mixed_selection=recipe.mixed_query_selection,
        proposal_scale=recipe.proposal_scale,
        temperature=recipe.position_temperature,
    )


def _build_training_groups(
    recipe: ModelRecipe,
    class_head: ClassHead,
    box_head: BoxHead,
    one_to_many_groups: OneToManyGroups,
) -> TrainingGroups | None:
    groups, mixed = recipe.query_groups, recipe.mixed_query_selection
    one_stage = not recipe.two_stage
    if groups == QueryGroupsRecipe():
        return None
    return TrainingGroups(
        independent=None
        if groups.group is None
        else IndependentGroups(
            width=recipe.width,
            num_groups=groups.group.groups - 1,
            num_queries=recipe.num_queries,
            one_stage=one_stage,
            mixed_selection=mixed,
            class_head=class_head,
            box_head=box_head,
            proposal_scale=recipe.proposal_scale,
            one_to_many=one_to_many_groups == "matched",
        ),
        hybrid=None
        if groups.hybrid is None
        else HybridQueries(
            width=recipe.width,
            num_queries=groups.hybrid.queries,
            one_stage=one_stage,
            mixed_selection=mixed,
        ),
        denoising=None
        if groups.denoising is None
        else DenoisingQueries(width=recipe.width, num_classes=class_head.out_features),
    )


def _build_decoder_layer(recipe: ModelRecipe) -> DecoderLayer:
    order, one_to_many = _PLACEMENTS[recipe.placement]
    return DecoderLayer(
        _layer_sizes(recipe), order=order, one_to_many=one_to_many, extra_ffn=recipe.extra_ffn
    )


def _layer_sizes(recipe: ModelRecipe) -> LayerSizes:
    return LayerSizes(
        width=recipe.width,
        heads=recipe.heads,
        levels=recipe.levels,
        points=recipe.points,
        ffn_width=recipe.ffn_width,
        dropout=recipe.dropout,
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
