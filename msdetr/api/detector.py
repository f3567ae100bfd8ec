"""The detector for Python users: a model with its classes and its preprocessing."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Self

import torch

from msdetr.api.checkpoints.loaded import LoadedCheckpoint, check_free
from msdetr.api.checkpoints.official import export_official, open_checkpoint
from msdetr.api.detection.dataset_detector import autocast, make_detections
from msdetr.api.detection.image_detections import ImageDetections, split_detections
from msdetr.api.detection.image_inputs import IMAGE_TYPES, ImageInput, to_sample
from msdetr.api.export import (
    ExportReport,
    ExportSettings,
    export_loaded,
)
from msdetr.build import build_eval_transform
from msdetr.data.labels import LabelSpace
from msdetr.data.sample import Sample
from msdetr.engine.checkpoint import save_checkpoint
from msdetr.engine.device import resolve_device
from msdetr.engine.weights import unique_state
from msdetr.errors import DataError, UsageError
from msdetr.export.formats import SUFFIXES
from msdetr.model import DetectionModel
from msdetr.recipe import Recipe
from msdetr.structures import ModelOutput

DEFAULT_THRESHOLD = 0.3
# So many batches' worth of images are decoded and sorted by shape at a time.
_BATCHES_AHEAD = 4
_DECODING_THREADS = 4

OnUnreadable = Callable[[int, DataError], None]


class Detector:
    """A trained model, ready to be given images.

    Preprocessing, precision and detections are those of ``msdetr eval``.

    Args:
        loaded: The model with its recipe and classes.
    """

    def __init__(self, loaded: LoadedCheckpoint) -> None:
        self._loaded = loaded
        self._collator = loaded.collator
        self._transform = build_eval_transform(loaded.recipe.data)
        self._settings = loaded.detection_settings

    @classmethod
    def from_checkpoint(
        cls,
        path: str | os.PathLike[str],
        *,
        recipe: str | None = None,
        overrides: Sequence[str] = (),
        device: torch.device | str = "auto",
    ) -> Self:
        """Load a detector.

        Args:
            path: Checkpoint or run directory (its best checkpoint, else its last), or a
                published ``.pth`` file.
            recipe: Name or path of a published file's recipe; not for a checkpoint of ours.
            overrides: Recipe fields to change, such as ``"evaluation.batch_size=8"``.
            device: "auto" prefers a GPU; otherwise as for ``torch.device``.

        Raises:
            CheckpointError: It cannot be loaded.
            RecipeError: The recipe or an override is invalid.
        """
        if device == "auto":
            device = resolve_device("auto")
        loaded = open_checkpoint(Path(path), recipe=recipe, overrides=overrides)
        return cls(loaded).to(device)

    @property
    def model(self) -> DetectionModel:
        """The network, in evaluation mode."""
        return self._loaded.model

    @property
    def recipe(self) -> Recipe:
        """The resolved recipe."""
        return self._loaded.recipe

    @property
    def label_space(self) -> LabelSpace:
        """The classes, with the category ids of the training annotations."""
        return self._loaded.label_space

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, by label."""
        return self._loaded.label_space.names_by_label

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    def to(self, device: torch.device | str) -> Self:
        """Move the model to a device and return the detector."""
        self.model.to(device)
        return self

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
        size = self._settings.batch_size if batch_size is None else batch_size
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

    def save(self, path: str | os.PathLike[str], *, force: bool = False) -> None:
        """Save as a checkpoint, which is all that any command needs.

        Args:
            path: Directory to write.
            force: Replace a checkpoint there.

        Raises:
            UsageError: The directory exists.
            MsdetrError: It cannot be written.
        """
        check_free(Path(path), force=force)
        save_checkpoint(Path(path), info=self._loaded.info, model=unique_state(self.model))

    def export(
        self,
        path: str | os.PathLike[str],
        settings: ExportSettings | None = None,
        *,
        verified_images: int | None = None,
        data: str | None = None,
        force: bool = False,
    ) -> ExportReport:
        """Write a file that runs without this package, and compare it with the model.

        Args:
            path: File to write, ``.onnx`` or ``.pt2``.
            settings: Its form; by default the format of the suffix, for inputs of any size.
            verified_images: Images to compare file and model on; 0 for no comparison. By default
                8, and more, up to 32, until the model has found 50 objects on them.
            data: Images to compare on: a root in COCO's layout, or "IMAGES,ANNOTATIONS.json";
                the recipe's validation split by default.
            force: Replace an existing file.

        Raises:
            InvalidInputError: Something given cannot be used, or a package is missing.
            VerificationError: The file differs from the model; it is named ``*.unverified``.
        """
        if settings is None:
            by_suffix = {suffix: name for name, suffix in SUFFIXES.items()}
            settings = ExportSettings(format=by_suffix.get(Path(path).suffix, "onnx"))
        on_cpu = replace(self._loaded, model=deepcopy(self.model).cpu())
        return export_loaded(
            on_cpu,
            Path(path),
            settings,
            verified_images=verified_images,
            data=data,
            force=force,
        )

    def export_official(self, path: str | os.PathLike[str], *, force: bool = False) -> None:
        """Write a ``.pth`` file that the published code loads.

        Args:
            path: File to write.
            force: Replace an existing file.

        Raises:
            CheckpointError: The published code has no such model.
            UsageError: The file exists.
            MsdetrError: It cannot be written.
        """
        export_official(
            replace(self._loaded, model=deepcopy(self.model).cpu()), Path(path), force=force
        )

    def _prepare(self, numbered: tuple[int, ImageInput]) -> Sample | DataError:
        position, image = numbered
        try:
            return to_sample(image, self._transform, position, self.recipe.data.max_image_pixels)
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
                found |= zip(ids, self._detect(batch, threshold), strict=True)
        return found

    @torch.inference_mode()
    def _detect(self, samples: Sequence[Sample], threshold: float) -> list[ImageDetections]:
        batch = self._collator(samples)
        with autocast(self.device, self._settings.precision):
            output: ModelOutput = self.model(batch.images.to(self.device), with_one_to_many=False)
        detections = make_detections(output.one_to_one, -1, batch.original_hw, self._settings)
        sizes_hw = [sample.original_hw for sample in samples]
        return split_detections(detections, sizes_hw, self._loaded.label_space, threshold)
