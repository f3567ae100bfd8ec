from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from msdetr.api.exported_detector import ExportedDetector
from msdetr.api.exporting.stored_form import read_form
from msdetr.errors import MsdetrError
from msdetr.recipe import Recipe, load_recipe, recipe_to_dict

ANY_SIZE = {"pixels": (None, 3, None, None), "padding_mask": (None, None, None)}
PREPROCESSING = {
    "channels": "RGB",
    "resize": {"short_side": 64, "long_side": 128},
    "mean": [0.0, 0.0, 0.0],
    "std": [1.0, 1.0, 1.0],
    "pad_multiple": 50,
    "strides": [8],
    "least_side": 120,
    "least_cells": 1,
}
METADATA = {
    "metadata_version": 1,
    "class_names": ["cat", "dog"],
    "category_ids": [4, 8],
    "preprocessing": PREPROCESSING,
    "outputs": ["scores", "labels", "boxes"],
    "detections": 3,
}
# In pixels of the input.
BOXES = [[0.0, 0.0, 32.0, 32.0], [1.0, 1.0, 32.0, 32.0], [64.0, 32.0, 128.0, 64.0]]


@dataclass
class Program:
    """Stands for a file that finds the same three boxes everywhere."""

    metadata: Mapping[str, Any]
    input_shapes: Mapping[str, tuple[int | None, ...]]
    outputs: list[Any] = field(
        default_factory=lambda: [
            torch.tensor([[0.9, 0.8, 0.7]]),
            torch.tensor([[1, 1, 0]]),
            torch.tensor([BOXES]),
        ]
    )
    given: list[Mapping[str, Tensor]] = field(default_factory=list)

    def run(self, feeds: Mapping[str, Tensor]) -> list[Tensor]:
        self.given.append(feeds)
        count = len(feeds["pixels"])
        return [value.expand(count, *value.shape[1:]) for value in self.outputs]


@pytest.fixture
def recipe() -> Recipe:
    return load_recipe("shapes_tiny", ["evaluation.batch_size=2"])


@pytest.fixture
def make(recipe: Recipe) -> Callable[..., ExportedDetector]:
    def detector(program: Program, **changes: object) -> ExportedDetector:
        form = read_form(program, Path("model.onnx"))
        evaluation = recipe.evaluation.model_copy(update=changes)
        return ExportedDetector(program, form, recipe.model_copy(update={"evaluation": evaluation}))

    return detector


@pytest.fixture
def program(recipe: Recipe) -> Program:
    return Program({**METADATA, "recipe": recipe_to_dict(recipe)}, ANY_SIZE)


def picture(width: int, height: int) -> Image.Image:
    return Image.new("RGB", (width, height), (255, 0, 0))


def test_input_and_pixels_of_the_original(
    program: Program, make: Callable[..., ExportedDetector]
) -> None:
    (found,) = make(program).predict(picture(256, 128), threshold=0.0)
    (feeds,) = program.given
    # 64 x 128 after the resize, a multiple of 50 in the batch, and at least 120 for the file.
    assert feeds["pixels"].shape == (1, 3, 120, 150)
    assert (~feeds["padding_mask"]).sum() == 64 * 128
    assert feeds["pixels"][0, :, :64, :128].mean(dim=(1, 2)).tolist() == [1, 0, 0]
    assert feeds["pixels"].sum() == 64 * 128
    torch.testing.assert_close(found.boxes_xyxy_px, 2 * torch.tensor(BOXES))
    assert found.class_names == ("dog", "dog", "cat")
    assert found.category_ids == (8, 8, 4)


def test_suppression_limit_and_threshold(
    program: Program, make: Callable[..., ExportedDetector]
) -> None:
    image = picture(128, 64)
    (suppressed,) = make(program, nms_threshold=0.5).predict(image)
    assert suppressed.scores.tolist() == pytest.approx([0.9, 0.7])
    (few,) = make(program, detections_per_image=1).predict(image)
    assert few.scores.tolist() == pytest.approx([0.9])
    (strong,) = make(program).predict(image, threshold=0.75)
    assert len(strong) == 2


def test_batches_of_a_fixed_size_are_filled(
    program: Program, make: Callable[..., ExportedDetector]
) -> None:
    resize = {"height": 64, "width": 96}
    preprocessing = {**PREPROCESSING, "resize": resize, "least_side": 1}
    program.metadata = {**program.metadata, "preprocessing": preprocessing}
    program.input_shapes = {"pixels": (4, 3, 64, 96)}
    images = [picture(96, 64), picture(10, 200), picture(192, 64), picture(96, 64), picture(1, 1)]
    found = make(program).predict(images, threshold=0.0)
    assert [entry.image_hw for entry in found] == [image.size[::-1] for image in images]
    assert [list(feeds["pixels"].shape) for feeds in program.given] == 2 * [[4, 3, 64, 96]]
    torch.testing.assert_close(
        found[2].boxes_xyxy_px, torch.tensor(BOXES) * torch.tensor([2, 1, 2, 1])
    )


@pytest.mark.parametrize("size", [1, 2, 5])
def test_any_number_of_images_goes_together(
    size: int, program: Program, make: Callable[..., ExportedDetector]
) -> None:
    images = [picture(128, 64)] * 3
    assert len(make(program).predict(images, batch_size=size)) == 3
    assert [len(feeds["pixels"]) for feeds in program.given] == {
        1: [1, 1, 1],
        2: [2, 1],
        5: [3],
    }[size]


SCORES, LABELS = torch.tensor([[0.9, 0.8, 0.7]]), torch.tensor([[1, 1, 0]])


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ([SCORES, LABELS], r"yields something else than its metadata say: \[1, 3\], \[1, 3\]$"),
        ([SCORES, LABELS, torch.tensor(BOXES)[None, :, :3]], "yields something else"),
        ([SCORES, LABELS[:, :2], torch.tensor([BOXES])], "yields something else"),
        ([SCORES, LABELS + 1, torch.tensor([BOXES])], "yields something else"),
        ([SCORES * torch.nan, LABELS, torch.tensor([BOXES])], "the detections are not finite"),
        ([None, None, None], "the exported file cannot be run: 'NoneType' object has no"),
    ],
    ids=["missing", "no boxes", "lengths", "labels", "nan", "failure"],
)
def test_what_is_no_detection(
    outputs: list[Any], message: str, program: Program, make: Callable[..., ExportedDetector]
) -> None:
    program.outputs = outputs
    with pytest.raises(MsdetrError, match=message):
        make(program).predict(picture(128, 64))
