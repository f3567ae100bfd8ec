"""Floating-point operations of training batches and of a data set's images."""

from __future__ import annotations

import logging
from collections.abc import Callable

from msdetr.data.batching import Batch, Collator
from msdetr.data.dataset import DetectionDataset
from msdetr.data.transforms import EvalTransform, resized_hw
from msdetr.model import DetectionModel
from msdetr.model.flops import FlopCounter

_LOGGER = logging.getLogger("msdetr")
_NUM_IMAGES = 100


class OperationCounts:
    """Counts what a model computes; a model that cannot be counted is no error.

    Args:
        model: Copied without its weights.
    """

    def __init__(self, model: DetectionModel) -> None:
        self._counter = FlopCounter(model)
        self._of_images: int | None = None

    def of_batch(self, batch: Batch) -> int | None:
        """Count the forward and backward pass of a training batch."""
        return _counted(lambda: self._counter.count_training(batch.images, batch.noised))

    def of_images(self, dataset: DetectionDataset, collator: Collator) -> int | None:
        """Count the inference of one image, on average over the first 100 of a data set.

        Args:
            dataset: Images with the evaluation resize.
            collator: Pads them.

        Source: Carion et al., DETR, ECCV 2020, table 1 (there of COCO's validation images).
        """
        if self._of_images is None:
            self._of_images = _counted(lambda: self._average(dataset, collator))
        return self._of_images

    def _average(self, dataset: DetectionDataset, collator: Collator) -> int:
        resize = dataset.transform
        assert isinstance(resize, EvalTransform)
        sizes = [
            collator.padded_hw(resized_hw((height, width), resize.size, resize.max_size))
            for height, width in dataset.index.image_hw[:_NUM_IMAGES].tolist()
        ]
        by_size = {hw: self._counter.count_inference(*hw) for hw in set(sizes)}
        return round(sum(by_size[hw] for hw in sizes) / len(sizes))


def _counted(count: Callable[[], int]) -> int | None:
    try:
        return count()
    except Exception as failure:  # of a model with parts that need values, for instance
        _LOGGER.warning("floating-point operations were not counted: %s", failure)
        return None
