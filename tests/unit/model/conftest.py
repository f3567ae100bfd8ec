"""A small model whose parts tests may vary."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from msdetr import build as composition
from msdetr.model import DetectionModel
from msdetr.recipe import ModelRecipe
from msdetr.structures import FeatureLevels, ImageBatch

WIDTH, NUM_CLASSES = 32, 5
BACKBONE = {"name": "resnet_tiny", "weights": "none", "norm": "group", "frozen_stages": 0}
MODEL: dict[str, Any] = {
    "backbone": {**BACKBONE, "stem_width": 8},
    "width": WIDTH,
    "heads": 4,
    "points": 2,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "ffn_width": 48,
    "dropout": 0.0,
    "num_queries": 6,
    "extra_ffn": False,
}


@pytest.fixture(autouse=True)
def _fixed_weights() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def build(*, checkpoint_encoder: bool = False, **fields: Any) -> DetectionModel:
    recipe = ModelRecipe.model_validate({**MODEL, **fields})
    return shake(
        composition.build_model(recipe, NUM_CLASSES, checkpoint_encoder=checkpoint_encoder)
    )


def shake(model: DetectionModel) -> DetectionModel:
    """Move parameters off their initial values, where zeros would hide mistakes."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model


@pytest.fixture
def build_model() -> Callable[..., DetectionModel]:
    """Compose a small model; keyword arguments are fields of the recipe."""
    return build


def padded_images(sizes_hw: list[tuple[int, int]], canvas_hw: tuple[int, int]) -> ImageBatch:
    pixels = torch.zeros(len(sizes_hw), 3, *canvas_hw)
    mask = torch.ones(len(sizes_hw), *canvas_hw, dtype=torch.bool)
    for index, (height, width) in enumerate(sizes_hw):
        pixels[index, :, :height, :width] = torch.randn(3, height, width)
        mask[index, :height, :width] = False
    return ImageBatch(pixels, mask)


@pytest.fixture
def images() -> ImageBatch:
    """Two images of different size in one batch."""
    return padded_images([(64, 96), (96, 80)], (96, 96))


def padded_levels(
    levels_hw: list[list[tuple[int, int]]], canvas_hw: list[tuple[int, int]]
) -> FeatureLevels:
    """Random levels; ``levels_hw[b][l]`` is the unpadded part of level l of image b."""
    maps: list[Tensor] = []
    masks: list[Tensor] = []
    for level, (height, width) in enumerate(canvas_hw):
        features = torch.randn(len(levels_hw), WIDTH, height, width)
        mask = torch.ones(len(levels_hw), height, width, dtype=torch.bool)
        for image, sizes in enumerate(levels_hw):
            mask[image, : sizes[level][0], : sizes[level][1]] = False
        maps.append(features)
        masks.append(mask)
    return FeatureLevels(tuple(maps), tuple(masks))


@pytest.fixture
def make_levels() -> Callable[..., FeatureLevels]:
    """Make random padded levels; arguments as for ``padded_levels``."""
    return padded_levels


@pytest.fixture
def levels() -> FeatureLevels:
    """Levels of two images of different size."""
    unpadded = [[(8, 12), (4, 6), (2, 3), (1, 2)], [(12, 10), (6, 5), (3, 3), (2, 2)]]
    return padded_levels(unpadded, [(12, 12), (6, 6), (3, 3), (2, 2)])


def named(module: nn.Module) -> dict[str, nn.Parameter]:
    return dict(module.named_parameters())
