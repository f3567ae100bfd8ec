"""Recipe -> data: annotations, classes, data sets, batches, and what becomes of detections."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from torch.utils.data import Dataset

from msdetr.data import shapes
from msdetr.data.batching import Collator
from msdetr.data.coco_index import CocoIndex, CocoSplit, locate_split, read_coco
from msdetr.data.dataset import DetectionDataset
from msdetr.data.denoising import DenoisingNoise
from msdetr.data.file_names import find_outside
from msdetr.data.labels import LabelSpace
from msdetr.data.loading import BatchLoader
from msdetr.data.sample import Sample
from msdetr.data.transforms import EvalTransform, TrainTransform
from msdetr.errors import DataError
from msdetr.evaluation.settings import DetectionSettings
from msdetr.model import DetectionModel
from msdetr.recipe import DataRecipe, Recipe


def read_split(
    recipe: DataRecipe, split: str, progress: shapes.Progress | None = None
) -> CocoIndex:
    """Read the annotations of "train" or "val", generating the embedded data set if needed.

    Args:
        recipe: Names the data set.
        split: "train" or "val".
        progress: Told how many images are generated, and of how many.

    Raises:
        DataError: Something is missing or malformed, or an image lies outside the data set.
    """
    located = locate_files(recipe, split, progress)
    index = read_coco(located.images_dir, located.annotations_file)
    outside = [] if recipe.allow_outside else outside_names(recipe, index)
    if outside:
        more = f" (and {len(outside) - 1} more like it)" if len(outside) > 1 else ""
        raise DataError(
            str(located.annotations_file),
            f"{outside[0]!r} lies outside the data set{more}; set data.allow_outside: true to use "
            "such images",
        )
    return limit_split(recipe, split, index)


def outside_names(recipe: DataRecipe, index: CocoIndex) -> list[str]:
    """List the images of a split that lie neither in its image folder nor in the root."""
    folders = [index.images_dir, *([] if recipe.root is None else [recipe.root])]
    return find_outside(index.file_names, folders)


def locate_files(
    recipe: DataRecipe, split: str, progress: shapes.Progress | None = None
) -> CocoSplit:
    """Find the files of "train" or "val", generating the embedded data set if needed.

    Args:
        recipe: Names the data set.
        split: "train" or "val".
        progress: Told how many images are generated, and of how many.

    Raises:
        DataError: The data set is missing or cannot be generated.
    """
    chosen = recipe.train if split == "train" else recipe.val
    root: Path | None = recipe.root
    if recipe.source == "shapes":
        num_train, num_val = recipe.shapes.num_train, recipe.shapes.num_val
        folder = root or shapes.default_folder(num_train, num_val)
        root = shapes.ensure(folder, num_train, num_val, progress)
    return locate_split(split, root=root, images=chosen.images, annotations=chosen.annotations)


def limit_split(recipe: DataRecipe, split: str, index: CocoIndex) -> CocoIndex:
    """Keep the images of a split that the recipe uses."""
    chosen = recipe.train if split == "train" else recipe.val
    return index if chosen.limit is None else index.limit(chosen.limit)


def build_label_space(recipe: DataRecipe, index: CocoIndex) -> LabelSpace:
    """Map the categories of an annotation file to label indices.

    Raises:
        DataError: The recipe's label space has no place for a category.
    """
    match recipe.label_space:
        case "coco91":
            return LabelSpace.coco91(index.categories, str(index.annotations_file))
        case "contiguous":
            return LabelSpace.contiguous(index.categories)


def build_train_transform(recipe: DataRecipe) -> TrainTransform:
    """Make the augmentation."""
    chosen = recipe.augmentation
    return TrainTransform(
        flip_probability=chosen.flip_probability,
        train_sizes=chosen.train_sizes,
        max_size=chosen.max_size,
        crop_probability=chosen.crop_probability,
        crop_pre_sizes=chosen.crop_pre_sizes,
        crop_min=chosen.crop_min,
        crop_max=chosen.crop_max,
        color_jitter=chosen.color_jitter,
    )


def build_eval_transform(recipe: DataRecipe) -> EvalTransform:
    """Make the resize of evaluation."""
    return EvalTransform(size=recipe.eval_size, max_size=recipe.eval_max_size)


def build_collator(recipe: Recipe, model: DetectionModel) -> Collator:
    """Make what turns samples into batches for a model of this recipe."""
    return Collator(
        mean=recipe.data.mean,
        std=recipe.data.std,
        min_cells=recipe.model.num_queries if recipe.model.two_stage else 1,
        strides=model.strides,
        pad_multiple=recipe.data.pad_multiple,
    )


def build_train_collator(
    recipe: Recipe, model: DetectionModel, label_space: LabelSpace
) -> Collator:
    """Make the collator of training, which also noises targets for denoising queries."""
    return replace(build_collator(recipe, model), noise=build_noise(recipe, label_space.labels))


def build_noise(recipe: Recipe, labels: Sequence[int]) -> DenoisingNoise | None:
    """Make what noises targets for denoising queries; None where there are none.

    Args:
        recipe: Kind and extent of the noise, and the seed.
        labels: Label indices that classes of the data have.
    """
    denoising = recipe.model.query_groups.denoising
    if denoising is None:
        return None
    return DenoisingNoise(
        contrastive=denoising.contrastive,
        budget=denoising.budget,
        groups=denoising.groups,
        label_redraw=denoising.label_redraw,
        box_noise=denoising.box_noise,
        max_targets=denoising.max_targets,
        labels=tuple(labels),
        seed=recipe.train.seed,
    )


def build_train_dataset(
    recipe: Recipe, index: CocoIndex, label_space: LabelSpace
) -> DetectionDataset:
    """Make the images of an index a data set with augmentation."""
    return DetectionDataset(
        index,
        build_train_transform(recipe.data),
        label_space,
        recipe.train.seed,
        skip_unreadable=recipe.data.unreadable_images == "skip",
        max_pixels=recipe.data.max_image_pixels,
    )


def build_eval_dataset(
    recipe: Recipe, index: CocoIndex, label_space: LabelSpace
) -> DetectionDataset:
    """Make the images of an index a data set with the resize of evaluation."""
    transform = build_eval_transform(recipe.data)
    max_pixels = recipe.data.max_image_pixels
    return DetectionDataset(index, transform, label_space, recipe.train.seed, max_pixels=max_pixels)


def build_loader(
    recipe: DataRecipe, dataset: Dataset[Sample], collator: Collator, *, pin_memory: bool = False
) -> BatchLoader:
    """Make what loads batches of a data set.

    Args:
        recipe: Says how many processes work at it.
        dataset: Samples by (epoch, position).
        collator: See :func:`build_collator`.
        pin_memory: Put batches in page-locked memory.
    """
    return BatchLoader(dataset, collator, num_workers=recipe.num_workers, pin_memory=pin_memory)


def build_detection_settings(
    recipe: Recipe, label_space: LabelSpace, *, is_wrapped: bool = False
) -> DetectionSettings:
    """Say how detections are made of a model's predictions.

    Args:
        recipe: Of the model.
        label_space: Its classes.
        is_wrapped: Whether the model's forward sees to the precision by itself, as it does in a
            training run.
    """
    evaluation = recipe.evaluation
    return DetectionSettings(
        limit=evaluation.detections_per_image,
        nms_threshold=evaluation.nms_threshold,
        batch_size=evaluation.batch_size,
        precision="fp32" if is_wrapped else recipe.train.precision,
        category_id_of_label=label_space.category_id_by_label,
        has_suppressor=recipe.model.suppressor is not None,
    )
