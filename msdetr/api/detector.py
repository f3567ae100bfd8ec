"""The detector for Python users: a model with its classes and its preprocessing."""

from __future__ import annotations

import os
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Self

import torch

from msdetr.api.checkpoints.loaded import LoadedCheckpoint, check_free
from msdetr.api.checkpoints.official import export_official, open_checkpoint
from msdetr.api.detection.dataset_detector import autocast, make_detections
from msdetr.api.detection.image_detections import ImageDetections, split_detections
from msdetr.api.detection.image_detector import ImageDetector, ImageReading
from msdetr.api.export import (
    ExportReport,
    ExportSettings,
    export_loaded,
)
from msdetr.build import build_eval_transform
from msdetr.data.sample import Sample
from msdetr.engine.checkpoint import save_checkpoint
from msdetr.engine.device import resolve_device
from msdetr.engine.weights import unique_state
from msdetr.export.formats import SUFFIXES
from msdetr.model import DetectionModel
from msdetr.recipe import Recipe
from msdetr.structures import ModelOutput


class Detector(ImageDetector):
    """A trained model, ready to be given images.

    Preprocessing, precision and detections are those of ``msdetr eval``.

    Args:
        loaded: The model with its recipe and classes.
    """

    def __init__(self, loaded: LoadedCheckpoint) -> None:
        data = loaded.recipe.data
        reading = ImageReading(
            build_eval_transform(data),
            data.max_image_pixels,
            loaded.detection_settings.batch_size,
        )
        super().__init__(reading, loaded.label_space)
        self._loaded = loaded
        self._collator = loaded.collator
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
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    def to(self, device: torch.device | str) -> Self:
        """Move the model to a device and return the detector."""
        self.model.to(device)
        return self

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
            path: File to write, ``.onnx``, ``.pt2`` or ``.xml``.
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

    @torch.inference_mode()
    def _detect_batch(self, samples: Sequence[Sample], threshold: float) -> list[ImageDetections]:
        batch = self._collator(samples)
        with autocast(self.device, self._settings.precision):
            output: ModelOutput = self.model(batch.images.to(self.device), with_one_to_many=False)
        detections = make_detections(output.one_to_one, -1, batch.original_hw, self._settings)
        sizes_hw = [sample.original_hw for sample in samples]
        return split_detections(detections, sizes_hw, self.label_space, threshold)
