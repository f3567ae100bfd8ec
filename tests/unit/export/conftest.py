"""Small models of every kind, built from recipes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from msdetr.build import build_model
from msdetr.model import DetectionModel
from msdetr.recipe import load_recipe
from msdetr.structures import ImageBatch

# The heads start at one probability and no offset: without noise everything would be near-tied.
_NOISE = 0.05

Build = Callable[..., DetectionModel]


@pytest.fixture
def build_tiny(tiny_fields: Callable[..., list[str]]) -> Build:
    """Build a tiny model: name of a recipe of shapes, further overrides."""

    def build(*overrides: str, recipe: str = "shapes_tiny") -> DetectionModel:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = build_model(load_recipe(recipe, [*tiny_fields(), *overrides]).model, 5).eval()
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(torch.randn_like(parameter), alpha=_NOISE)
        return model

    return build


@pytest.fixture
def images() -> ImageBatch:
    """Two images, one of them padded."""
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randn(2, 3, 96, 128, generator=generator)
    padding_mask = torch.zeros(2, 96, 128, dtype=torch.bool)
    padding_mask[1, 70:], padding_mask[1, :, 100:] = True, True
    return ImageBatch(pixels.masked_fill(padding_mask[:, None], 0.0), padding_mask)
