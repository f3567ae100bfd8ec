"""Operations of an average image, and of models that cannot be counted."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from msdetr.api.detection import operations
from msdetr.api.detection.operations import OperationCounts
from msdetr.build import build_collator, build_model
from msdetr.data.batching import Collator
from msdetr.data.transforms import EvalTransform
from msdetr.model import DetectionModel
from msdetr.recipe import Recipe, load_recipe


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return load_recipe("shapes_tiny", ["model.num_queries=20"])


@pytest.fixture
def model(recipe: Recipe) -> DetectionModel:
    return build_model(recipe.model, 3)


@pytest.fixture
def collator(recipe: Recipe, model: DetectionModel) -> Collator:
    return build_collator(recipe, model)


def dataset_of(sizes: list[tuple[int, int]]) -> Any:
    index = SimpleNamespace(image_hw=np.array(sizes))
    return SimpleNamespace(index=index, transform=EvalTransform(size=128, max_size=400))


def test_it_is_the_mean_over_the_images(model: DetectionModel, collator: Collator) -> None:
    wide, square = (128, 256), (128, 128)
    counts = OperationCounts(model)
    of_wide, of_square = (
        OperationCounts(model).of_images(dataset_of([hw]), collator) for hw in (wide, square)
    )
    assert of_wide is not None
    assert of_square is not None
    assert of_wide > of_square > 0
    mean = counts.of_images(dataset_of([wide, square, square]), collator)
    assert mean == round((of_wide + 2 * of_square) / 3)
    # The first hundred images; and one data set per model, counted once.
    many = dataset_of([square] * 100 + [wide] * 100)
    assert OperationCounts(model).of_images(many, collator) == of_square
    assert counts.of_images(many, collator) == mean


def test_images_count_as_the_model_gets_them(model: DetectionModel, collator: Collator) -> None:
    large, resized = dataset_of([(480, 640)]), dataset_of([(128, 170)])
    a, b = (OperationCounts(model).of_images(each, collator) for each in (large, resized))
    assert a == b


def test_a_model_that_cannot_be_counted_is_no_error(
    model: DetectionModel,
    collator: Collator,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(*_: object) -> int:
        return int(torch.zeros((), device="meta"))

    monkeypatch.setattr(operations.FlopCounter, "count_inference", fail)
    with caplog.at_level(logging.WARNING, "msdetr"):
        assert OperationCounts(model).of_images(dataset_of([(128, 128)]), collator) is None
    assert "floating-point operations were not counted" in caplog.text
