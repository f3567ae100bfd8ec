"""A small model whose parts tests may vary."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

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
    LearnedQueries,
    Neck,
    OneToManySource,
    TwoStageQueries,
)
from msdetr.structures import FeatureLevels, ImageBatch

SIZES: dict[str, Any] = {"width": 32, "heads": 4, "levels": 4, "points": 2}
NUM_CLASSES = 5


@pytest.fixture(autouse=True)
def _fixed_weights() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def build(
    *,
    num_queries: int = 6,
    dropout: float = 0.0,
    order: LayerOrder = LayerOrder.CROSS_ATTENTION_FIRST,
    one_to_many: OneToManySource = OneToManySource.FIRST_ATTENTION,
    extra_ffn: bool = False,
    two_stage: bool = True,
    mixed_selection: bool = False,
    iterative_refinement: bool = True,
    look_forward_twice: bool = False,
    checkpoint_layers: bool = False,
) -> DetectionModel:
    layer: dict[str, Any] = {**SIZES, "ffn_width": 48, "dropout": dropout}
    width = SIZES["width"]
    class_head, box_head = ClassHead(width, NUM_CLASSES), BoxHead(width)
    backbone = Backbone(name="resnet_tiny", norm="group", frozen_stages=0, stem_width=8)
    branch: dict[str, Any] = {"order": order, "one_to_many": one_to_many, "extra_ffn": extra_ffn}
    query_source: LearnedQueries | TwoStageQueries = LearnedQueries(
        width=width, num_queries=num_queries
    )
    if two_stage:
        query_source = TwoStageQueries(
            width=width,
            num_queries=num_queries,
            class_head=class_head,
            box_head=box_head,
            mixed_selection=mixed_selection,
        )
    model = DetectionModel(
        backbone=backbone,
        neck=Neck(backbone.channels, width, SIZES["levels"]),
        encoder=Encoder(
            layers=[EncoderLayer(**layer) for _ in range(2)],
            width=width,
            levels=SIZES["levels"],
            checkpoint_layers=checkpoint_layers,
        ),
        query_source=query_source,
        decoder=Decoder(
            layers=[DecoderLayer(**layer, **branch) for _ in range(2)],
            class_head=class_head,
            box_head=box_head,
            iterative_refinement=iterative_refinement,
            look_forward_twice=look_forward_twice,
            first_size_bias=0.0 if two_stage else -2.0,
        ),
    )
    return shake(model)


def shake(model: DetectionModel) -> DetectionModel:
    """Move parameters off their initial values, where zeros would hide mistakes."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model


@pytest.fixture
def build_model() -> Callable[..., DetectionModel]:
    """Compose a small model; keyword arguments as for ``build``."""
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
        features = torch.randn(len(levels_hw), SIZES["width"], height, width)
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
