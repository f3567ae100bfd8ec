"""The composition root: recipes in, objects out. Nothing else knows both sides."""

from __future__ import annotations

from pathlib import Path

from msdetr.assignment import HungarianAssigner, OneToManyAssigner, assign_together
from msdetr.assignment.own_file import load_assigner
from msdetr.assignment.repeated_hungarian import RepeatedHungarianAssigner
from msdetr.assignment.task_aligned import TaskAlignedAssigner
from msdetr.data import shapes
from msdetr.data.batching import Collator
from msdetr.data.coco_index import CocoIndex, CocoSplit, locate_split, read_coco
from msdetr.data.labels import LabelSpace
from msdetr.data.transforms import EvalTransform, TrainTransform
from msdetr.engine.optimizer import ParameterGroup
from msdetr.engine.schedule import Schedule
from msdetr.losses import BranchRule, Criterion, LossWeights, Supervision
from msdetr.model import (
    Backbone,
    BoxHead,
    ClassHead,
    Decoder,
    DecoderLayer,
    DetectionModel,
    Encoder,
    EncoderLayer,
    LayerOrder,
    LayerSizes,
    LearnedQueries,
    Neck,
    OneToManySource,
    TwoStageQueries,
)
from msdetr.model.parameter_groups import parameter_group
from msdetr.model.pretrained import load_backbone_weights
from msdetr.recipe import (
    BackboneRecipe,
    CostRecipe,
    DataRecipe,
    FocalRecipe,
    LossRecipe,
    ModelRecipe,
    OneToManyRecipe,
    Recipe,
    SupervisionRecipe,
    TrainRecipe,
    assigners,
)
from msdetr.structures import Assigner

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
    recipe: ModelRecipe, num_classes: int, *, checkpoint_encoder: bool = False
) -> DetectionModel:
    """Compose a model with random weights.

    Args:
        recipe: Architecture.
        num_classes: K.
        checkpoint_encoder: Recompute encoder layers in the backward pass.
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
    )


def load_pretrained_backbone(model: DetectionModel, recipe: BackboneRecipe) -> None:
    """Load the backbone weights that the recipe names, if any.

    Raises:
        CheckpointError: They cannot be fetched, or do not fit.
    """
    weights = load_backbone_weights(recipe.name, recipe.weights)
    if weights is not None:
        model.backbone.load_weights(weights, recipe.weights)


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
        else BranchRule(build_assigner(many, recipe.focal), _loss_weights(many.loss)),
        proposals=None
        if proposals is None
        else BranchRule(_hungarian(proposals.cost, recipe.focal), _loss_weights(proposals.loss)),
    )
    return Criterion(supervision, alpha=recipe.focal.alpha, gamma=recipe.focal.gamma)


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
            return RepeatedHungarianAssigner(
                class_weight=chosen.class_weight,
                l1_weight=chosen.l1_weight,
                giou_weight=chosen.giou_weight,
                alpha=focal.alpha,
                gamma=focal.gamma,
                copies=chosen.copies,
            )
        case assigners.TaskAlignedRecipe() as chosen:
            return TaskAlignedAssigner(chosen.k, chosen.class_power, chosen.iou_power)
        case assigners.FileRecipe() as chosen:
            return load_assigner(chosen.file, chosen.class_name, chosen.options)


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


def _loss_weights(loss: LossRecipe) -> LossWeights:
    return LossWeights(loss.class_weight, loss.box_weight, loss.giou_weight)
