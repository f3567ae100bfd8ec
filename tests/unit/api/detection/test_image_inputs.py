from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from msdetr.api.detection.image_inputs import to_image
from msdetr.errors import DataError, UsageError

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
GREY = PIXELS[..., 0]
ALPHA = np.concatenate([PIXELS, GREY[..., None]], axis=-1)


def channels_first(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(array, -1, 0)))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (PIXELS, PIXELS),
        (ALPHA, PIXELS),
        (GREY, np.repeat(GREY[..., None], 3, axis=2)),
        (GREY[..., None], np.repeat(GREY[..., None], 3, axis=2)),
        (PIXELS / 255, PIXELS),
        ((PIXELS / 255).astype(np.float32), PIXELS),
        (PIXELS.astype(np.uint16) * 257, PIXELS),
        (PIXELS[::-1, ::-1], PIXELS[::-1, ::-1]),
        (channels_first(PIXELS), PIXELS),
        (channels_first(PIXELS).float() / 255, PIXELS),
        (channels_first(PIXELS).double().div(255).requires_grad_(), PIXELS),
        (channels_first(ALPHA), PIXELS),
        (channels_first(GREY[..., None]), np.repeat(GREY[..., None], 3, axis=2)),
        (Image.fromarray(PIXELS), PIXELS),
        (Image.fromarray(ALPHA), PIXELS),
        (Image.fromarray(GREY.astype(np.uint16) * 257), np.repeat(GREY[..., None], 3, axis=2)),
    ],
)
def test_every_kind_is_the_same_image(value: Any, expected: np.ndarray) -> None:
    image = to_image(value)
    assert image.mode == "RGB"
    assert np.array_equal(np.asarray(image), expected)


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(PIXELS).save(path)
    for value in (path, str(path)):
        assert np.array_equal(np.asarray(to_image(value)), PIXELS)


def test_half_precision_rounds_to_the_nearest_step() -> None:
    tensor = channels_first(PIXELS).to(torch.bfloat16) / 255
    difference = np.asarray(to_image(tensor)).astype(int) - PIXELS
    assert np.abs(difference).max() <= 1


def test_orientation_of_a_pillow_image() -> None:
    image = Image.fromarray(PIXELS)
    image.getexif()[ExifTags.Base.Orientation] = 3
    assert np.array_equal(np.asarray(to_image(image)), PIXELS[::-1, ::-1])
    assert image.getexif()[ExifTags.Base.Orientation] == 3


@pytest.mark.parametrize(
    ("value", "parts"),
    [
        (np.zeros((3, 5, 7), np.uint8), ("array", "[H, W, 3]", "got [3, 5, 7]")),
        (np.zeros((1, 5, 7, 3), np.uint8), ("array", "got [1, 5, 7, 3]")),
        (np.zeros((0, 7, 3), np.uint8), ("array", "got [0, 7, 3]")),
        (np.zeros((5, 7, 3), np.int64), ("uint8, uint16 or floats", "got int64")),
        (np.full((5, 7, 3), 200.0), ("floats from 0 to 1", "got 200 to 200")),
        (np.full((5, 7), np.nan), ("floats from 0 to 1", "nan")),
        (torch.zeros(5, 7, 3), ("tensor", "[3, H, W]", "got [5, 7, 3]")),
        (torch.zeros(5, 7), ("tensor", "got [5, 7]")),
        (torch.zeros(2, 3, 5, 7), ("tensor", "got [2, 3, 5, 7]")),
        (torch.full((3, 5, 7), -0.5), ("floats from 0 to 1", "got -0.5")),
        (42, ("path", "got int")),
    ],
)
def test_what_is_no_image(value: Any, parts: tuple[str, ...]) -> None:
    with pytest.raises(UsageError) as caught:
        to_image(value)
    for part in parts:
        assert part in str(caught.value)


def test_unreadable_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        to_image(tmp_path / "gone.png")
