"""Recipe -> model."""

from __future__ import annotations

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
from msdetr.model.pretrained import load_backbone_weights
from msdetr.recipe import BackboneRecipe, ModelRecipe, Recipe
from msdetr.seeding import seed_torch

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


def build_initial_model(recipe: Recipe, num_classes: int) -> DetectionModel:
    """Compose the model that a training run starts with: random weights of the recipe's seed.

    Seeds torch's global generators.

    Args:
        recipe: Architecture, seed, and whether encoder layers are recomputed.
        num_classes: K.
    """
    seed_torch(recipe.train.seed, "init")
    return build_model(
        recipe.model, num_classes, checkpoint_encoder=recipe.train.checkpoint_encoder
    )


def load_pretrained_backbone(model: DetectionModel, recipe: BackboneRecipe) -> None:
    """Load the backbone weights that the recipe names, if any.

    Raises:
        CheckpointError: They cannot be fetched, or do not fit.
    """
    weights = load_backbone_weights(recipe.name, recipe.weights)
    if weights is not None:
        model.backbone.load_weights(weights, recipe.weights)


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
