"""Inputs of exported files, where they differ from those of a model."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn.functional import pad
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from msdetr.data.sample import Example
from msdetr.structures import ImageBatch


@dataclass(frozen=True)
class StretchTransform:
    """Resize to one fixed size, whatever the aspect ratio; what a file without mask needs.

    Attributes:
        hw: Height and width in pixels.
    """

    hw: tuple[int, int]

    def __call__(self, example: Example, generator: torch.Generator | None = None) -> Example:
        """Return the resized image; its targets are not for comparison with predictions."""
        del generator
        image = functional.resize(example.image, list(self.hw), InterpolationMode.BILINEAR)
        return Example(image, example.boxes_xyxy_px, example.labels)


def grow(images: ImageBatch, min_side: int) -> ImageBatch:
    """Pad images at the right and bottom until both sides have a minimum length.

    Args:
        images: Normalised.
        min_side: In pixels.
    """
    height, width = images.padding_mask.shape[1:]
    missing = (0, max(0, min_side - width), 0, max(0, min_side - height))
    return ImageBatch(pad(images.pixels, missing), pad(images.padding_mask, missing, value=True))
