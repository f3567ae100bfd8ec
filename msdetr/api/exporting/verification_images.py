"""Real images for the verification of an export, and their score."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import cycle

import numpy as np
import torch

from msdetr.api.checkpoints.loaded import LoadedCheckpoint
from msdetr.api.datasets import EvaluationData, load_evaluation_data
from msdetr.api.detection.dataset_detector import Results
from msdetr.api.exporting.inputs import StretchTransform, grow
from msdetr.api.progress import counting, show_progress
from msdetr.build import build_eval_dataset, build_label_space
from msdetr.data import shapes
from msdetr.data.coco_index import locate_split, read_coco
from msdetr.data.dataset import DetectionDataset
from msdetr.errors import DataError
from msdetr.evaluation import detections_to_results, evaluate_boxes
from msdetr.export import ExportSettings, VerificationBatch
from msdetr.structures import Detections

# So small a data set is generated in a second.
_NUM_SHAPES = 64


@dataclass(frozen=True)
class VerificationData:
    """Images to verify on.

    Attributes:
        data: Images with their ground truth.
        source: What they are, in words.
        is_scored: Whether the ground truth is of the model's classes.
        notice: Why these images, if not those that were to be expected.
    """

    data: EvaluationData
    source: str
    is_scored: bool = True
    notice: str | None = None


def load_verification_data(
    loaded: LoadedCheckpoint, settings: ExportSettings, data: str | None
) -> VerificationData:
    """Find images: those of ``data``, else the recipe's validation split, else generated shapes.

    Raises:
        DataError: ``data`` is missing or malformed.
        UsageError: ``data`` is no data set.
    """
    try:
        found = load_evaluation_data(loaded.recipe, loaded.label_space, data)
        annotations = str(found.dataset.index.annotations_file)
        verified = VerificationData(found, annotations)
    except DataError as error:
        if data is not None:
            raise
        notice = f"verifying on generated shapes, without AP: {str(error).splitlines()[0]}"
        verified = VerificationData(_shapes(loaded), "generated shapes", False, notice)  # noqa: FBT003
    if settings.static_hw is not None:
        verified.data.dataset.transform = StretchTransform(settings.static_hw)
    return verified


def verification_batches(
    loaded: LoadedCheckpoint,
    settings: ExportSettings,
    data: EvaluationData,
    num_images: Sequence[int],
) -> Iterator[VerificationBatch]:
    """Make batches of images of different sizes, with a line of progress now and then.

    Files for any size are given one image, padded as in evaluation, and two images, padded as
    little as possible, in turn, so that sizes vary; others are given their batch size.

    Args:
        loaded: The model, with its way to make batches.
        settings: Form of the file.
        data: Images.
        num_images: Numbers of images, ascending: whoever stops after one of them has seen images
            of all sizes.
    """
    dataset = data.dataset
    groups = _group(_spread_in_rounds(dataset, num_images), settings)
    collator = loaded.collator
    tight = replace(collator, pad_multiple=1)
    for group in show_progress(groups, len(groups), "verifying"):
        size = len(group) if settings.static_hw is None else settings.batch
        samples = [dataset[0, position] for position in group]
        samples += [samples[-1]] * (size - len(samples))
        alone = settings.static_hw is None and size == 1
        images = (collator if alone else tight).pad([sample.pixels for sample in samples])
        yield VerificationBatch(
            images=grow(images, settings.min_side),
            image_ids=tuple(sample.image_id for sample in samples[: len(group)]),
            original_hw=torch.tensor([sample.original_hw for sample in samples]),
        )


def score(
    loaded: LoadedCheckpoint,
    verified: VerificationData,
    found: Sequence[tuple[Sequence[int], Detections]],
) -> float | None:
    """Compute the AP of detections on the images that they belong to; None without ground truth."""
    if not verified.is_scored:
        return None
    categories = loaded.label_space.category_id_by_label
    results: Results = []
    for image_ids, detections in found:
        results += detections_to_results(detections, image_ids, categories)
    ids = [image_id for image_ids, _ in found for image_id in image_ids]
    return evaluate_boxes(verified.data.ground_truth, results, image_ids=ids).ap


def _shapes(loaded: LoadedCheckpoint) -> EvaluationData:
    with counting("generating shapes") as progress:
        folder = shapes.default_folder(1, _NUM_SHAPES)
        root = shapes.ensure(folder, 1, _NUM_SHAPES, progress)
    split = locate_split("val", root=root)
    index = read_coco(split.images_dir, split.annotations_file)
    label_space = build_label_space(loaded.recipe.data, index)
    return EvaluationData(build_eval_dataset(loaded.recipe, index, label_space))


def _spread(dataset: DetectionDataset, num_images: int) -> list[int]:
    """Return positions of images evenly spread over all sizes."""
    height, width = dataset.index.image_hw.T
    order = np.lexsort((width, height, height / width))
    chosen = np.linspace(0, len(order) - 1, min(num_images, len(order))).round().astype(int)
    positions: list[int] = order[chosen].tolist()
    return positions


def _spread_in_rounds(dataset: DetectionDataset, num_images: Sequence[int]) -> list[int]:
    """Return positions for growing numbers of images; each beginning is spread over all sizes."""
    positions: dict[int, None] = {}
    for number in num_images:
        positions |= dict.fromkeys(_spread(dataset, number))
    return list(positions)[: num_images[-1]]


def _group(positions: Sequence[int], settings: ExportSettings) -> list[Sequence[int]]:
    sizes = cycle((1, 2)) if settings.static_hw is None else cycle((settings.batch,))
    groups, start = [], 0
    while start < len(positions):
        size = next(sizes)
        groups.append(positions[start : start + size])
        start += size
    return groups
