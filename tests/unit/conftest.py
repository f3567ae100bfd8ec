"""Small models of every packaged recipe with query groups, and scenes to be scored on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from msdetr.recipe import QueryGroupsRecipe, Recipe, load_recipe, packaged_recipes

Scene = tuple[dict[str, Any], list[dict[str, Any]]]

NUM_QUERIES, NUM_HYBRID, NUM_GROUPS = 6, 9, 3
_FIELDS = {
    "model.backbone": "{name: resnet_tiny, weights: none, norm: group, frozen_stages: 0,"
    " stem_width: 8}",
    "model.width": 32,
    "model.heads": 2,
    "model.points": 2,
    "model.encoder_layers": 1,
    "model.decoder_layers": 2,
    "model.ffn_width": 32,
    "model.dropout": 0,
    "model.num_queries": NUM_QUERIES,
    "evaluation.detections_per_image": 5,
    "data.num_workers": 0,
}
_SIZES = {"hybrid": ("queries", NUM_HYBRID), "group": ("groups", NUM_GROUPS)}


def recipes_with_groups() -> list[str]:
    """Names of the packaged recipes that have query groups."""
    return [
        info.name
        for info in packaged_recipes()
        if load_recipe(info.path).model.query_groups != QueryGroupsRecipe()
    ]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that takes ``grouped_recipe`` for every packaged recipe with query groups."""
    if "grouped_recipe" in metafunc.fixturenames:
        metafunc.parametrize("grouped_recipe", recipes_with_groups())


@pytest.fixture(scope="session")
def small_recipe() -> Callable[..., Recipe]:
    """Load a packaged recipe, sized so that a step takes milliseconds; further overrides."""

    def load(name: str, *overrides: str) -> Recipe:
        groups = load_recipe(name).model.query_groups
        sizes = [
            f"model.query_groups.{group}.{field}={value}"
            for group, (field, value) in _SIZES.items()
            if getattr(groups, group) is not None
        ]
        fields = [f"{key}={value}" for key, value in _FIELDS.items()]
        return load_recipe(name, [*fields, *sizes, *overrides])

    return load


@pytest.fixture(scope="session")
def random_scene() -> Callable[..., Scene]:
    """Draw ground truth of three classes and detections of varying quality.

    Has crowd, boxes without area, images without objects or detections, and detections of a
    class that the ground truth does not know.
    """

    def draw(
        seed: int, *, num_images: int = 12, max_detections: int = 30, rounded: bool = False
    ) -> Scene:
        generator = np.random.default_rng(seed)
        annotations: list[dict[str, Any]] = []
        results: list[dict[str, Any]] = []
        for image in range(1, num_images + 1):
            own = [_object(generator, image, rounded) for _ in range(generator.integers(0, 8))]
            annotations += own
            results += [
                _detection(generator, image, own, rounded)
                for _ in range(generator.integers(0, max_detections + 1))
            ]
        truth = {
            "images": [{"id": image} for image in range(1, num_images + 1)],
            "categories": [{"id": number, "name": f"class {number}"} for number in (1, 3, 7)],
            "annotations": annotations,
        }
        return truth, results

    return draw


def _object(generator: np.random.Generator, image: int, rounded: bool) -> dict[str, Any]:
    box = _box(generator, rounded)
    if generator.random() < 0.05:
        box[2] = 0.0
    return {
        "image_id": image,
        "category_id": int(generator.choice([1, 3, 7])),
        "bbox": box,
        "area": box[2] * box[3] * float(generator.choice([1.0, 0.7])),
        "iscrowd": int(generator.random() < 0.1),
    }


def _detection(
    generator: np.random.Generator, image: int, objects: list[dict[str, Any]], rounded: bool
) -> dict[str, Any]:
    box, category = _box(generator, rounded), int(generator.choice([1, 3, 7, 99]))
    if objects and generator.random() < 0.7:
        found = objects[generator.integers(len(objects))]
        noise = generator.normal(0, generator.choice([0.0, 0.1]), 4) * max(found["bbox"][2:])
        box, category = (noise + found["bbox"]).tolist(), found["category_id"]
        box[2:] = [abs(box[2]), abs(box[3])]
    score = generator.random()
    return {
        "image_id": image,
        "category_id": category,
        "bbox": [float(round(value)) for value in box] if rounded else box,
        "score": round(score, 1) if rounded else score,
    }


def _box(generator: np.random.Generator, rounded: bool) -> list[float]:
    sizes = np.exp(generator.uniform(np.log(4), np.log(200), 2))
    box = [*generator.uniform(0, 200, 2), *sizes]
    return [float(round(value)) if rounded else float(value) for value in box]
