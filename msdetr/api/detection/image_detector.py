"""Detection in single images: what a model and an exported file have in common."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from msdetr.api.detection.image_detections import ImageDetections
from msdetr.api.detection.image_inputs import IMAGE_TYPES, ImageInput, Resize, to_sample
from msdetr.data.labels import LabelSpace
from msdetr.data.sample import Sample
from msdetr.errors import DataError, UsageError

DEFAULT_THRESHOLD = 0.3
# So many batches' worth of images are decoded and sorted by shape at a time.
_BATCHES_AHEAD = 4
_DECODING_THREADS = 4

OnUnreadable = Callable[[int, DataError], None]


@dataclass(frozen=True)
class ImageReading:
    """How images become samples, and how many of them go together.

    Attributes:
        resize: Resizes as in evaluation.
        max_pixels: Pixels of the largest file that may be decoded.
        batch_size: Images per forward pass, unless a caller says otherwise.
    """

    resize: Resize
    max_pixels: int
    batch_size: int


class ImageDetector(ABC):
    """Detects objects in images that come one by one.

    Args:
        reading: How images are read.
        label_space: The classes.
    """

    def __init__(self, reading: ImageReading, label_space: LabelSpace) -> None:
        self.reading = reading
        self._label_space = label_space

    @property
    def label_space(self) -> LabelSpace:
        """The classes, with the category ids of the training annotations."""
        return self._label_space

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, by label."""
        return self._label_space.names_by_label

    def predict(
        self,
        images: ImageInput | Iterable[ImageInput],
        *,
        threshold: float = DEFAULT_THRESHOLD,
        batch_size: int | None = None,
    ) -> list[ImageDetections]:
        """Detect objects.

        Args:
            images: One image or several: paths, Pillow images, arrays [H, W, 3] or [H, W] and
                tensors [3, H, W] (uint8, uint16, or floats from 0 to 1), in any mixture.
            threshold: Minimum score of the detections to keep, in 0..1.
            batch_size: Images per forward pass; the recipe's ``evaluation.batch_size`` by
                default. Only images of one shape share a pass: they are never padded.

        Returns:
            One entry per image, in their order, also for a single image.

        Raises:
            DataError: A file cannot be read as an image.
            UsageError: An array or a tensor is no image, or an option is out of range.
        """
        given = [images] if isinstance(images, IMAGE_TYPES) else images
        stream = self.stream(given, threshold=threshold, batch_size=batch_size)
        return [found for found in stream if found is not None]

    def stream(
        self,
        images: Iterable[ImageInput],
        *,
        threshold: float = DEFAULT_THRESHOLD,
        batch_size: int | None = None,
        on_unreadable: OnUnreadable | None = None,
    ) -> Iterator[ImageDetections | None]:
        """Detect objects in any number of images, a few batches at a time.

        Args:
            images: As for ``predict``.
            threshold: As for ``predict``.
            batch_size: As for ``predict``.
            on_unreadable: Told the position and the error of a file that cannot be read, for
                which None is yielded; without it the error is raised.

        Yields:
            One entry per image, in their order.

        Raises:
            DataError: As for ``predict``.
            UsageError: As for ``predict``.
        """
        size = self.reading.batch_size if batch_size is None else batch_size
        if size < 1:
            raise UsageError("batch_size", f"must be at least 1, got {size}")
        if not 0 <= threshold <= 1:
            raise UsageError("threshold", f"must lie in 0..1, got {threshold}")
        numbered = enumerate(images)
        with ThreadPoolExecutor(_DECODING_THREADS) as pool:
            while chunk := list(itertools.islice(numbered, _BATCHES_AHEAD * size)):
                samples: list[Sample] = []
                for (position, _), prepared in zip(
                    chunk, pool.map(self._prepare, chunk), strict=True
                ):
                    if isinstance(prepared, Sample):
                        samples.append(prepared)
                    elif on_unreadable is None:
                        raise prepared
                    else:
                        on_unreadable(position, prepared)
                found = self._detect_all(samples, size, threshold)
                yield from (found.get(position) for position, _ in chunk)

    @abstractmethod
    def _detect_batch(self, samples: Sequence[Sample], threshold: float) -> list[ImageDetections]:
        """Detect objects in images of one shape.

        Args:
            samples: B images, at least one.
            threshold: Minimum score of the detections to keep, in 0..1.
        """

    def _prepare(self, numbered: tuple[int, ImageInput]) -> Sample | DataError:
        position, image = numbered
        try:
            return to_sample(image, self.reading.resize, position, self.reading.max_pixels)
        except DataError as error:
            return error

    def _detect_all(
        self, samples: Sequence[Sample], batch_size: int, threshold: float
    ) -> dict[int, ImageDetections]:
        found: dict[int, ImageDetections] = {}
        # Stable, so that images of one shape keep their order.
        ordered = sorted(samples, key=lambda sample: sample.pixels.shape)
        for _, group in itertools.groupby(ordered, key=lambda sample: sample.pixels.shape):
            same = list(group)
            for start in range(0, len(same), batch_size):
                batch = same[start : start + batch_size]
                ids = [sample.image_id for sample in batch]
                found |= zip(ids, self._detect_batch(batch, threshold), strict=True)
        return found
