"""The images of an index, decoded and transformed on demand."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms.v2 import functional

from msdetr.boxes import xyxy_to_cxcywh
from msdetr.data.coco_index import CocoIndex
from msdetr.data.images import decode_image
from msdetr.data.labels import LabelSpace
from msdetr.data.sample import Example, Sample
from msdetr.data.sampling import Key
from msdetr.data.transforms import Transform
from msdetr.errors import DataError, UnreadableImageError
from msdetr.image_files import MAX_PIXELS
from msdetr.seeding import seeded_generator

MAX_SKIPPED = 20
"""Unreadable images in a row after which the folder rather than an image must be at fault."""


class DetectionDataset(Dataset[Sample]):
    """Samples of a data set by (epoch, position).

    The augmentation of an image depends on the seed, the epoch and the image's id only, not on
    the process, the worker or the order.

    Args:
        index: Images and targets.
        transform: Augmentation or evaluation resize.
        label_space: Classes of the model.
        seed: Seed of the run.
        skip_unreadable: Put the next image, by ascending id, in place of one whose file is
            missing or damaged. Which one that is depends on the files only.
        max_pixels: Pixels of the largest image that may be decoded.

    Raises:
        DataError: If a category of the index is not in the label space.
    """

    def __init__(
        self,
        index: CocoIndex,
        transform: Transform,
        label_space: LabelSpace,
        seed: int,
        *,
        skip_unreadable: bool = False,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        self.index = index
        self.transform = transform
        self.label_space = label_space
        self.seed = seed
        self.skip_unreadable = skip_unreadable
        self.max_pixels = max_pixels
        self._labels = label_space.labels_of(index.category_ids, str(index.annotations_file))

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.index)

    def __getitem__(self, key: Key) -> Sample:
        """Decode and transform an image.

        Args:
            key: Epoch and position in the index.

        Raises:
            DataError: If the image file is missing, damaged or has another size than annotated;
                where unreadable images are skipped, if too many follow one another.
        """
        epoch, position = key
        if not self.skip_unreadable:
            return self._sample(epoch, position)
        skipped: list[str] = []
        for offset in range(min(MAX_SKIPPED, len(self))):
            try:
                sample = self._sample(epoch, (position + offset) % len(self))
            except UnreadableImageError as error:
                skipped.append(str(error))
            else:
                return replace(sample, skipped=tuple(skipped))
        raise DataError(
            str(self.index.images_dir),
            f"{len(skipped)} images in a row cannot be read; the first is {skipped[0]}",
        )

    def _sample(self, epoch: int, position: int) -> Sample:
        image_id = int(self.index.image_ids[position])
        example = self.load(position)
        generator = seeded_generator("augmentation", self.seed, epoch, image_id)
        changed = self.transform(example, generator)
        return Sample(
            pixels=functional.pil_to_tensor(changed.image),
            boxes_cxcywh=_relative(changed),
            labels=changed.labels,
            image_id=image_id,
            original_hw=(example.image.height, example.image.width),
            epoch=epoch,
        )

    def load(self, position: int) -> Example:
        """Decode an image without transforming it."""
        index, rows = self.index, self.index.targets_of(position)
        height, width = index.image_hw[position].tolist()
        return Example(
            image=decode_image(index.path_of(position), (height, width), self.max_pixels),
            boxes_xyxy_px=torch.tensor(index.boxes_xyxy_px[rows]),
            labels=torch.tensor(self._labels[rows]),
        )


def _relative(example: Example) -> Tensor:
    width, height = example.image.size
    size = torch.tensor([width, height, width, height], dtype=torch.float32)
    return xyxy_to_cxcywh(example.boxes_xyxy_px) / size
