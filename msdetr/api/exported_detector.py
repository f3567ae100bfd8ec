"""Detection with an exported file, by what the file says of itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from msdetr.api.detection.dataset_detector import finish_detections
from msdetr.api.detection.image_detections import ImageDetections, split_detections
from msdetr.api.detection.image_detector import ImageDetector, ImageReading
from msdetr.api.exporting.inputs import grow
from msdetr.api.exporting.stored_form import StoredForm, read_form
from msdetr.data.sample import Sample
from msdetr.errors import CheckpointError, MsdetrError, Problem, RecipeError, UsageError, first_line
from msdetr.export.formats import extra_of, file_reader, format_of, missing_runtimes
from msdetr.export.outputs import detections_of_outputs
from msdetr.export.runners import StoredProgram, feed
from msdetr.recipe import Recipe, recipe_from_dict
from msdetr.recipe.differences import find_differences
from msdetr.structures import Detections, ImageBatch

_LIMIT = "evaluation.detections_per_image"
# What is done around a file; everything else is part of it.
_CHANGEABLE = (
    "data.max_image_pixels",
    "evaluation.batch_size",
    _LIMIT,
    "evaluation.nms_threshold",
)


class ExportedDetector(ImageDetector):
    """An exported file, ready to be given images; runs on the CPU.

    Preprocessing is that of the metadata, the rest that of the recipe in them.

    Args:
        program: The file.
        form: What it says of itself.
        recipe: How detections are made of what it yields.
    """

    def __init__(self, program: StoredProgram, form: StoredForm, recipe: Recipe) -> None:
        self._program = program
        self._form = form
        self._recipe = recipe
        self._collator = form.collator
        batch = program.input_shapes["pixels"][0]
        # A file of fixed size takes exactly so many images.
        self._batch = None if form.static_hw is None else batch
        size = recipe.evaluation.batch_size if self._batch is None else self._batch
        reading = ImageReading(form.resize, recipe.data.max_image_pixels, size)
        super().__init__(reading, form.label_space)

    @classmethod
    def from_file(cls, path: Path, overrides: Sequence[str] = ()) -> Self:
        """Load an exported file.

        Args:
            path: A file that ``export_checkpoint`` has written.
            overrides: Recipe fields to change, ``key=value``: those of what is done around the
                file.

        Raises:
            CheckpointError: It is missing or damaged, not ours, or could run code.
            RecipeError: An override is invalid, or of what the file has fixed.
            UsageError: What runs it is not installed.
        """
        program = _open(path)
        form = read_form(program, path)
        return cls(program, form, _read_recipe(form, path, overrides))

    @torch.inference_mode()
    def _detect_batch(self, samples: Sequence[Sample], threshold: float) -> list[ImageDetections]:
        size = self._batch or len(samples)
        return [
            found
            for start in range(0, len(samples), size)
            for found in self._detect(samples[start : start + size], threshold)
        ]

    def _detect(self, samples: Sequence[Sample], threshold: float) -> list[ImageDetections]:
        missing = 0 if self._batch is None else self._batch - len(samples)
        filled = [*samples, *[samples[-1]] * missing]
        batch = self._collator(filled)
        images = grow(batch.images, self._form.preprocessing.least_side)
        outputs = self._run(images)
        evaluation = self._recipe.evaluation
        limit = evaluation.detections_per_image
        found = detections_of_outputs(outputs, images.padding_mask, batch.original_hw, limit)
        found = finish_detections(_best(found, limit), evaluation.nms_threshold)
        sizes_hw = [sample.original_hw for sample in samples]
        return split_detections(found, sizes_hw, self.label_space, threshold)

    def _run(self, images: ImageBatch) -> dict[str, Tensor]:
        try:
            values = self._program.run(feed(images, self._program.input_shapes))
        except MsdetrError:
            raise
        except Exception as error:  # whatever a runtime raises
            reason = first_line(error)
            raise MsdetrError(f"the exported file cannot be run: {reason}") from error
        outputs: dict[str, Tensor] = dict(zip(self._form.outputs, values, strict=False))
        fits = len(values) == len(outputs) == len(self._form.outputs)
        if not fits or not _are_detections(outputs, len(images.pixels), len(self.class_names)):
            shapes = ", ".join(str(list(value.shape)) for value in values)
            raise MsdetrError(
                f"the exported file yields something else than its metadata say: {shapes}"
            )
        return outputs


def _are_detections(outputs: Mapping[str, Tensor], num_images: int, num_classes: int) -> bool:
    boxes = outputs["boxes"]
    if boxes.ndim != 3 or (boxes.shape[0], boxes.shape[2]) != (num_images, 4):
        return False
    if "logits" in outputs:
        return outputs["logits"].shape == (*boxes.shape[:2], num_classes)
    scores, labels = outputs["scores"], outputs["labels"]
    if not scores.shape == labels.shape == boxes.shape[:2]:
        return False
    return bool(((labels >= 0) & (labels < num_classes)).all())


def _best(found: Detections, limit: int) -> Detections:
    """Keep the first detections, which have the highest scores."""
    return Detections(
        found.boxes_xyxy_px[:, :limit], found.scores[:, :limit], found.labels[:, :limit]
    )


def _open(path: Path) -> StoredProgram:
    if not path.is_file():
        raise CheckpointError(str(path), "is a folder" if path.is_dir() else "no such file")
    name = format_of(path)
    assert name is not None
    missing = missing_runtimes(name)
    if missing:
        needed = " and ".join(missing)
        raise UsageError(str(path), f"needs {needed}: pip install 'msdetr[{extra_of(name)}]'")
    return file_reader(name).open_file(path)


def _read_recipe(form: StoredForm, path: Path, overrides: Sequence[str]) -> Recipe:
    values = dict(form.recipe)
    evaluation = values.get("evaluation")
    if form.detections is not None and isinstance(evaluation, dict):
        values["evaluation"] = {**evaluation, "detections_per_image": form.detections}
    stored = recipe_from_dict(values, str(path))
    recipe = recipe_from_dict(values, str(path), overrides)
    problems = list(_refused(stored, recipe, form.detections))
    if problems:
        raise RecipeError("`overrides`", problems)
    return recipe


def _refused(stored: Recipe, recipe: Recipe, detections: int | None) -> Iterator[Problem]:
    for difference in find_differences(stored, recipe):
        if difference.key not in _CHANGEABLE:
            yield Problem(
                difference.key,
                f"is fixed in an exported file; can be changed: {', '.join(_CHANGEABLE)}",
            )
        elif difference.key == _LIMIT and detections is not None and difference.second > detections:
            yield Problem(
                _LIMIT, f"must be at most {detections}, the file's, got {difference.second}"
            )
