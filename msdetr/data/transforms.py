"""Augmentation for training and the resize for evaluation.

Images stay Pillow images until the end: Pillow's antialiased bilinear resize, rounded to
8 bits, is what the published models were trained with, and other implementations differ by
one step in some pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from msdetr.data.sample import Example

MIN_SIDE_PX = 32
_COLOR_ADJUSTMENTS = (
    functional.adjust_brightness,
    functional.adjust_contrast,
    functional.adjust_saturation,
)


class Transform(Protocol):
    """Changes an image together with its targets."""

    def __call__(self, example: Example, generator: torch.Generator) -> Example:
        """Return the transformed example; all randomness comes from ``generator``."""
        ...


@dataclass(frozen=True, kw_only=True)
class TrainTransform:
    """Horizontal flip; a random resize, perhaps after a resize and a crop; color jitter.

    Attributes:
        flip_probability: Probability of the horizontal flip.
        train_sizes: Short sides to draw from, in pixels.
        max_size: Longest side, in pixels, except before a crop.
        crop_probability: Probability of a crop before the random resize.
        crop_pre_sizes: Short sides to draw from before a crop, in pixels.
        crop_min: Smallest side of a crop, in pixels (or the image's side if that is smaller).
        crop_max: Largest side of a crop, in pixels.
        color_jitter: Largest relative change of brightness, contrast and saturation; at 0 no
            random number is drawn for it.

    Source: Carion et al., End-to-End Object Detection with Transformers, ECCV 2020, section 4.
    """

    flip_probability: float
    train_sizes: Sequence[int]
    max_size: int
    crop_probability: float
    crop_pre_sizes: Sequence[int]
    crop_min: int
    crop_max: int
    color_jitter: float = 0.0

    def __call__(self, example: Example, generator: torch.Generator) -> Example:
        """Return the augmented example."""
        if _uniform(generator) < self.flip_probability:
            example = flip(example)
        if _uniform(generator) < self.crop_probability:
            example = resize(example, _choose(self.crop_pre_sizes, generator), None)
            example = self._crop(example, generator)
        example = resize(example, _choose(self.train_sizes, generator), self.max_size)
        return self._jitter(example, generator) if self.color_jitter > 0 else example

    def _jitter(self, example: Example, generator: torch.Generator) -> Example:
        image = example.image
        for adjust in _COLOR_ADJUSTMENTS:
            image = adjust(image, 1 + self.color_jitter * (2 * _uniform(generator) - 1))
        return replace(example, image=image)

    def _crop(self, example: Example, generator: torch.Generator) -> Example:
        width, height = example.image.size
        crop_width = _integer(*self._crop_range(width), generator)
        crop_height = _integer(*self._crop_range(height), generator)
        top = _integer(0, height - crop_height, generator)
        left = _integer(0, width - crop_width, generator)
        return crop(example, (top, left), (crop_height, crop_width))

    def _crop_range(self, side: int) -> tuple[int, int]:
        return min(self.crop_min, side), min(side, self.crop_max)


@dataclass(frozen=True, kw_only=True)
class EvalTransform:
    """Resize to a fixed short side. Draws no random numbers.

    Attributes:
        size: Short side, in pixels.
        max_size: Longest side, in pixels.
    """

    size: int
    max_size: int

    def __call__(self, example: Example, generator: torch.Generator | None = None) -> Example:
        """Return the resized example."""
        del generator
        return resize(example, self.size, self.max_size)


def resized_hw(hw: tuple[int, int], size: int, max_size: int | None) -> tuple[int, int]:
    """Return the height and width after a resize to a short side.

    The short side becomes ``size``, or what keeps the long side near ``max_size``; the other
    side is truncated, so that ``max_size + 1`` occurs (and a little more for long strips). No
    side falls below 32 px.

    Args:
        hw: Height and width in pixels.
        size: Target short side, in pixels.
        max_size: Longest side, in pixels; None for no limit.
    """
    short, long = min(hw), max(hw)
    new_long = None
    if max_size is not None and long / short * size > max_size:
        size = round(max_size * short / long)
        # The short side of a sliver is enlarged, at the cost of its aspect ratio.
        new_long = max_size if size < MIN_SIDE_PX else None
    if new_long is None:
        new_long = long if short == size else int(size * long / short)
    new_short, new_long = max(size, MIN_SIDE_PX), max(new_long, MIN_SIDE_PX)
    height, width = hw
    return (new_short, new_long) if height <= width else (new_long, new_short)


def resize(example: Example, size: int, max_size: int | None) -> Example:
    """Resize so that the short side is ``size`` pixels; see :func:`resized_hw`."""
    old_width, old_height = example.image.size
    height, width = resized_hw((old_height, old_width), size, max_size)
    if (height, width) == (old_height, old_width):
        return example
    image = functional.resize(example.image, [height, width], InterpolationMode.BILINEAR)
    ratio = torch.tensor([width / old_width, height / old_height] * 2)
    return Example(image, example.boxes_xyxy_px * ratio, example.labels)


def flip(example: Example) -> Example:
    """Mirror left and right."""
    x0, y0, x1, y1 = example.boxes_xyxy_px.unbind(-1)
    width = example.image.width
    boxes = torch.stack([width - x1, y0, width - x0, y1], dim=-1)
    return Example(functional.horizontal_flip(example.image), boxes, example.labels)


def crop(example: Example, top_left: tuple[int, int], hw: tuple[int, int]) -> Example:
    """Cut out a region; boxes are clipped to it, those left without area are dropped.

    Args:
        example: What to cut.
        top_left: First row and column of the region, in pixels.
        hw: Height and width of the region, in pixels.
    """
    (top, left), (height, width) = top_left, hw
    shifted = example.boxes_xyxy_px - torch.tensor([left, top, left, top], dtype=torch.float32)
    boxes = clip_boxes_px(shifted, hw)
    keep = (boxes[:, 2:] > boxes[:, :2]).all(dim=-1)
    image = functional.crop(example.image, top, left, height, width)
    return Example(image, boxes[keep], example.labels[keep])


def clip_boxes_px(boxes_xyxy_px: Tensor, hw: tuple[int, int]) -> Tensor:
    """Clip [..., 4] corner boxes in pixels to an image of the given height and width."""
    height, width = hw
    limit = torch.tensor([width, height, width, height], dtype=boxes_xyxy_px.dtype)
    return torch.minimum(boxes_xyxy_px.clamp(min=0), limit)


def _uniform(generator: torch.Generator) -> float:
    return float(torch.rand((), generator=generator))


def _integer(low: int, high: int, generator: torch.Generator) -> int:
    return int(torch.randint(low, high + 1, (), generator=generator))


def _choose(values: Sequence[int], generator: torch.Generator) -> int:
    return values[_integer(0, len(values) - 1, generator)]
