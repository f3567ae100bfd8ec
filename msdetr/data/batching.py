"""Batches: normalised images padded to one size, with their targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from msdetr.data.denoising import DenoisingNoise
from msdetr.data.sample import Sample
from msdetr.structures import ImageBatch, NoisedTargets, Targets

_GROWTH_PX = 32


@dataclass(frozen=True)
class Batch:
    """Input of one forward pass.

    Attributes:
        images: [B, 3, H, W] normalised pixels and their padding mask.
        targets: Ground truth of the images.
        original_hw: [B, 2] int64, height and width before resizing, in pixels.
        skipped: Why images were replaced by others, one line each.
        noised: What denoising queries are made of; None where nothing trains any.
    """

    images: ImageBatch
    targets: Targets
    original_hw: Tensor
    skipped: tuple[str, ...] = ()
    noised: NoisedTargets | None = None

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Batch:
        """Return a copy whose tensors are on ``device``."""
        return Batch(
            self.images.to(device, non_blocking=non_blocking),
            self.targets.to(device, non_blocking=non_blocking),
            self.original_hw.to(device, non_blocking=non_blocking),
            self.skipped,
            self.noised and self.noised.to(device, non_blocking=non_blocking),
        )

    def pin_memory(self) -> Batch:
        """Return a copy in page-locked memory, for asynchronous copies to a GPU."""
        return Batch(
            self.images.pin_memory(),
            self.targets.pin_memory(),
            self.original_hw.pin_memory(),
            self.skipped,
            self.noised and self.noised.pin_memory(),
        )


@dataclass(frozen=True)
class Collator:
    """Collates samples into a batch; picklable, so that worker processes can run it.

    Attributes:
        mean: Per channel, subtracted from pixels in 0..1.
        std: Per channel, divides them afterwards.
        min_cells: Padding grows until the feature levels have this many cells together: a
            model cannot choose more queries than there are cells.
        strides: Pixels per cell of each level.
        pad_multiple: Sides are padded to a multiple of this, in pixels.
        noise: Makes the noised targets of denoising queries; None if there are to be none.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    min_cells: int
    strides: tuple[int, ...]
    pad_multiple: int = 1
    noise: DenoisingNoise | None = None

    def __call__(self, samples: Sequence[Sample]) -> Batch:
        """Normalise, pad with zeros at the right and bottom, and stack."""
        targets = Targets.from_lists(
            [sample.boxes_cxcywh for sample in samples],
            [sample.labels for sample in samples],
            [sample.image_id for sample in samples],
        )
        original_hw = torch.tensor([sample.original_hw for sample in samples])
        skipped = tuple(line for sample in samples for line in sample.skipped)
        noise = self.noise
        return Batch(
            self.pad([sample.pixels for sample in samples]),
            targets,
            original_hw,
            skipped,
            None if noise is None else noise(targets, [sample.epoch for sample in samples]),
        )

    def pad(self, images: Sequence[Tensor]) -> ImageBatch:
        """Normalise and pad B uint8 images [3, H_b, W_b] into one batch."""
        largest = (max(image.shape[1] for image in images), max(image.shape[2] for image in images))
        height, width = self.padded_hw(largest)
        pixels = torch.zeros(len(images), 3, height, width)
        padding_mask = torch.ones(len(images), height, width, dtype=torch.bool)
        mean, std = (torch.tensor(value)[:, None, None] for value in (self.mean, self.std))
        for index, image in enumerate(images):
            _, h, w = image.shape
            pixels[index, :, :h, :w] = image.float().div_(255).sub_(mean).div_(std)
            padding_mask[index, :h, :w] = False
        return ImageBatch(pixels, padding_mask)

    def padded_hw(self, hw: tuple[int, int]) -> tuple[int, int]:
        """Return the height and width, in pixels, that images up to this size are padded to."""
        rounded = (self._round_up(hw[0]), self._round_up(hw[1]))
        return grow_to_cells(rounded, self.strides, self.min_cells)

    def _round_up(self, side: int) -> int:
        return -(-side // self.pad_multiple) * self.pad_multiple


def count_cells(hw: tuple[int, int], strides: Sequence[int]) -> int:
    """Return S, the cells of all levels of a padded image of the given height and width.

    Levels halve by strided convolutions, each of which rounds up.
    """
    height, width = hw
    return sum(-(-height // stride) * -(-width // stride) for stride in strides)


def grow_to_cells(hw: tuple[int, int], strides: Sequence[int], min_cells: int) -> tuple[int, int]:
    """Lengthen the shorter side, 32 px at a time, until there are ``min_cells`` cells."""
    height, width = hw
    while count_cells((height, width), strides) < min_cells:
        if height <= width:
            height += _GROWTH_PX
        else:
            width += _GROWTH_PX
    return height, width
