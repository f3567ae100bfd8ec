"""Recipe -> model."""

from __future__ import annotations

from typing import Literal, cast

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
    SuppressingDecoder,
    Suppressor,
    TimmBackbone,
    TrainingGroups,
    TwoStageQueries,
)
from msdetr.model.backbone import BackboneName
from msdetr.model.pretrained import load_backbone_weights
from msdetr.pretraining import TIMM
from msdetr.recipe import (
    BackboneRecipe,
    ModelRecipe,
    QueryGroupsRecipe,
    Recipe,
    SupervisionRecipe,
)
from msdetr.seeding import seed_torch

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

    Raises:
        RecipeError: timm is not installed, or has no such backbone.
    """
    backbone = _build_backbone(recipe.backbone)
    class_head = ClassHead(recipe.width, num_classes, prior=recipe.class_prior)
    box_head = BoxHead(recipe.width)
    return DetectionModel(
        backbone=backbone,
        neck=Neck(backbone.channels, recipe.width, recipe.levels),
        encoder=_build_encoder(recipe, checkpoint_encoder=checkpoint_encoder),
        query_source=_build_query_source(recipe, class_head, box_head),
        decoder=_build_decoder(recipe, class_head, box_head),
        # Last, so that all other weights start as they do without such groups.
        training_groups=_build_training_groups(recipe, class_head, box_head, one_to_many_groups),
    )


def groups_with_one_to_many(recipe: SupervisionRecipe) -> OneToManyGroups:
    """Return which independent groups one-to-many supervision is for, if there is any."""
    return "primary" if recipe.group is None else recipe.group.one_to_many


def build_initial_model(recipe: Recipe, num_classes: int) -> DetectionModel:
    """Compose the model that a training run starts with: random weights of the recipe's seed.

    Seeds torch's global generators.

    Args:
        recipe: Architecture, seed, and whether encoder layers are recomputed.
        num_classes: K.
    """
    seed_torch(recipe.train.seed, "init")
    return build_model(
        recipe.model,
        num_classes,
        checkpoint_encoder=recipe.train.checkpoint_encoder,
        one_to_many_groups=groups_with_one_to_many(recipe.supervision),
    )


def load_pretrained_backbone(model: DetectionModel, recipe: BackboneRecipe) -> None:
    """Load the backbone weights that the recipe names, if any.

    Raises:
        CheckpointError: They cannot be fetched, or do not fit.
        RecipeError: timm is needed and not installed.
    """
    weights = load_backbone_weights(recipe.name, recipe.weights)
    if weights is not None:
        model.backbone.load_weights(weights, recipe.weights)


def _build_backbone(recipe: BackboneRecipe) -> Backbone | TimmBackbone:
    if recipe.name.startswith(TIMM):
        assert recipe.norm != "group", "refused by the recipe"
        return TimmBackbone(
            name=recipe.name.removeprefix(TIMM),
            norm=recipe.norm,
            frozen_stages=recipe.frozen_stages,
            drop_path=recipe.drop_path,
        )
    # Only resnet_tiny has a stem width; the schema fills it in there and forbids it elsewhere.
    width = {} if recipe.stem_width is None else {"stem_width": recipe.stem_width}
    return Backbone(
        name=cast(BackboneName, recipe.name),
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


def _build_decoder(recipe: ModelRecipe, class_head: ClassHead, box_head: BoxHead) -> Decoder:
    layers = [_build_decoder_layer(recipe) for _ in range(recipe.decoder_layers)]
    if recipe.suppressor is None:
        return Decoder(
            layers=layers,
            class_head=class_head,
            box_head=box_head,
            iterative_refinement=recipe.iterative_refinement,
            look_forward_twice=recipe.look_forward_twice,
            first_size_bias=0.0 if recipe.two_stage else _SIZE_BIAS_OF_POINTS,
        )
    chosen = recipe.suppressor
    return SuppressingDecoder(
        layers=layers,
        class_head=class_head,
        box_head=box_head,
        suppressor=Suppressor(
            _layer_sizes(recipe), learned_keys=chosen.learned_keys, relation=chosen.relation
        ),
        own_class_head=chosen.own_class_head,
        look_forward_twice=recipe.look_forward_twice,
    )


def _build_decoder_layer(recipe: ModelRecipe) -> DecoderLayer:
    order, one_to_many = _PLACEMENTS[recipe.placement]
    if recipe.suppressor is not None:
        # All that the layers predict is one-to-many, with heads of which there is one kind.
        one_to_many = OneToManySource.NONE
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
