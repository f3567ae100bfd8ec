"""Types that the stages of the data pipeline exchange."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image
from torch import Tensor


@dataclass(frozen=True)
class Example:
    """A decoded image with its targets, on the way through the transforms.

    Attributes:
        image: 8-bit RGB image of W x H pixels.
        boxes_xyxy_px: [T, 4] float32 corner boxes in pixels of ``image``.
        labels: [T] int64 in 0..K-1.
    """

    image: Image.Image
    boxes_xyxy_px: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Sample:
    """One image, transformed and ready to be batched.

    Attributes:
        pixels: [3, H, W] uint8, RGB.
        boxes_cxcywh: [T, 4] float32 in 0..1 of the image.
        labels: [T] int64 in 0..K-1.
        image_id: Id in the annotation file.
        original_hw: Height and width of the image before any resizing, in pixels.
        skipped: What is wrong with the images that this one replaces.
        epoch: In which it was asked for.
    """

    pixels: Tensor
    boxes_cxcywh: Tensor
    labels: Tensor
    image_id: int
    original_hw: tuple[int, int]
    skipped: tuple[str, ...] = ()
    epoch: int = 0
