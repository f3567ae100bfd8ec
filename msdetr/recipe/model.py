"""Recipe section ``model``: architecture of the detector."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from msdetr.pretraining import PACKAGE, TIMM
from msdetr.recipe.expectation import shown
from msdetr.recipe.query_groups import QueryGroupsRecipe
from msdetr.recipe.section import Queries, Section, Width

ResNetName = Literal["resnet18", "resnet34", "resnet50", "resnet101", "resnet_tiny"]
Placement = Literal["baseline", "a", "b", "c", "d"]

TINY_STEM_WIDTH = 16
BACKBONE_ERROR = "backbone"
"""Error type under which pydantic reports a backbone's name or weights that cannot be meant."""

_MISTAKEN_FOR_NONE = frozenset({"no", "off", "false", "none", "null"})


def _check_name(value: object) -> str:
    if isinstance(value, str) and (value in get_args(ResNetName) or _continues(value, TIMM)):
        return value
    names = ", ".join(get_args(ResNetName))
    message = "must be one of {names} or timm/NAME, got {value}"
    raise PydanticCustomError(BACKBONE_ERROR, message, {"names": names, "value": shown(value)})


def _check_weights(value: object) -> str:
    if isinstance(value, str) and value and (value == "none" or not _is_like_none(value)):
        if value.startswith(PACKAGE) and not _continues(value, PACKAGE):
            message = "must name a package, 'package:NAME', got {value}"
            raise PydanticCustomError(BACKBONE_ERROR, message, {"value": shown(value)})
        return value
    message = "must be 'imagenet', 'none', 'package:NAME' or a path to a file of weights"
    message += ", got {value}{hint}"
    hint = "; did you mean 'none'?" if _is_like_none(value) else ""
    raise PydanticCustomError(BACKBONE_ERROR, message, {"value": shown(value), "hint": hint})


def _continues(text: str, prefix: str) -> bool:
    return text.startswith(prefix) and len(text) > len(prefix)


def _is_like_none(value: object) -> bool:
    return value is None or value is False or str(value).lower() in _MISTAKEN_FOR_NONE


class BackboneRecipe(Section):
    """Convolutional network that turns images into maps of strides 8, 16 and 32."""

    name: Annotated[str, BeforeValidator(_check_name)] = Field(
        default="resnet50",
        description="Network: a ResNet; resnet_tiny, a small one for images of 256 px or less; or "
        "timm/NAME, a model of timm with maps at strides 8, 16 and 32.",
    )
    weights: Annotated[str, BeforeValidator(_check_weights)] = Field(
        default="imagenet",
        description="Initial weights: imagenet (torchvision's IMAGENET1K_V1, or timm's own), none, "
        "package:NAME (the file that an installed package ships), or a path.",
    )
    frozen_stages: int = Field(
        default=2,
        ge=0,
        le=5,
        description="Stages that do not train: 0 none, 1 the stem, 2 also layer1 (all up to the "
        "map of stride 4), ...",
    )
    norm: Literal["frozen_batch", "batch", "group"] = Field(
        default="frozen_batch",
        description="Norm layer; frozen_batch keeps statistics and affine fixed.",
    )
    dilation: bool = Field(
        default=False,
        description="Dilate the last stage instead of striding; resnet50 and resnet101 only.",
    )
    stem_width: Width | None = Field(
        default=None,
        ge=8,
        le=256,
        multiple_of=8,
        description="Channels of the first stage, doubling each stage; resnet_tiny only"
        f" (there {TINY_STEM_WIDTH} unless given).",
    )
    drop_path: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Probability of leaving out the last residual block in training, less for "
        "earlier ones (stochastic depth); timm/NAME only.",
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_stem_width(cls, values: object) -> object:
        if not isinstance(values, dict) or values.get("name") != "resnet_tiny":
            return values
        given = values.get("stem_width")
        return {**values, "stem_width": TINY_STEM_WIDTH if given is None else given}


class SuppressorRecipe(Section):
    """A last decoder layer in which queries see more confident ones alone (MDS-DETR)."""

    learned_keys: int = Field(
        default=10, ge=1, description="Learned keys G, which every query sees."
    )
    relation: bool = Field(
        default=True,
        description="Let attention depend on the boxes of both queries; otherwise on positions.",
    )
    own_class_head: bool = Field(
        default=True,
        description="Give the suppressor a class head; otherwise it shares the last layer's.",
    )


class ModelRecipe(Section):
    """Architecture from the backbone to the prediction heads."""

    backbone: BackboneRecipe = Field(default=BackboneRecipe(), description="The backbone.")
    width: Width = Field(
        default=256,
        ge=32,
        le=4096,
        multiple_of=32,
        description="Channels C; a multiple of 32 and of heads.",
    )
    heads: int = Field(default=8, ge=1, description="Attention heads M.")
    levels: int = Field(
        default=4,
        ge=1,
        le=6,
        description="Feature levels L: the backbone's three maps, more by stride-2 convolutions.",
    )
    points: int = Field(default=4, ge=1, description="Sampling points P per head and level.")
    encoder_layers: int = Field(default=6, ge=1, description="Encoder layers.")
    decoder_layers: int = Field(default=6, ge=1, description="Decoder layers N.")
    ffn_width: Width = Field(
        default=2048, ge=1, description="Hidden channels F of the feed-forward networks."
    )
    dropout: float = Field(
        default=0.1, ge=0, lt=1, description="Dropout probability in transformer layers."
    )
    num_queries: Queries = Field(default=300, ge=1, description="Queries Q.")
    two_stage: bool = Field(
        default=True,
        description="Take the queries from encoder proposals instead of learning them.",
    )
    mixed_query_selection: bool = Field(
        default=False,
        description="Learn the content of the queries, take only positions from proposals.",
    )
    look_forward_twice: bool = Field(
        default=False,
        description="Let a layer's box loss reach the refinement of the layer before it.",
    )
    iterative_refinement: bool = Field(
        default=True,
        description="Refine the reference boxes layer by layer, with separate heads per layer.",
    )
    placement: Placement = Field(
        default="c",
        description="Where one-to-many supervision attaches in a decoder layer: baseline (nowhere),"
        " a or b (layer output), c (after cross-attention), d (after self-attention).",
    )
    extra_ffn: bool = Field(
        default=True,
        description="Pass one-to-many features through a feed-forward network of their own;"
        " placements c and d only.",
    )
    suppressor: SuppressorRecipe | None = Field(
        default=None,
        description="Layer after the decoder layers that suppresses duplicates; it alone is"
        " supervised one-to-one, the layers one-to-many. Needs placement b; null: none.",
    )
    proposal_scale: float = Field(
        default=0.05,
        gt=0,
        lt=1,
        description="Side of a level-0 proposal box, as a fraction of the image.",
    )
    position_temperature: float = Field(
        default=10000.0, gt=1, description="Temperature of the sine position encodings."
    )
    query_groups: QueryGroupsRecipe = Field(
        default=QueryGroupsRecipe(),
        description="Query groups that train beside the primary queries.",
    )
    class_prior: float = Field(
        default=0.01,
        gt=0,
        lt=1,
        description="Initial probability p of every class; bias -log((1-p)/p).",
    )
