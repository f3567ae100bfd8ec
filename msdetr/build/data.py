"""Recipe -> data: annotations, classes, transforms and batches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from msdetr.data import shapes
from msdetr.data.batching import Collator
from msdetr.data.coco_index import CocoIndex, CocoSplit, locate_split, read_coco
from msdetr.data.denoising import DenoisingNoise
from msdetr.data.labels import LabelSpace
from msdetr.data.transforms import EvalTransform, TrainTransform
from msdetr.model import (
    DetectionModel,
)
from msdetr.recipe import (
    DataRecipe,
    Recipe,
)


def read_split(
    recipe: DataRecipe, split: str, progress: shapes.Progress | None = None
) -> CocoIndex:
    """Read the annotations of "train" or "val", generating the embedded data set if needed.

    Args:
        recipe: Names the data set.
        split: "train" or "val".
        progress: Told how many images are generated, and of how many.

    Raises:
        DataError: Something is missing or malformed.
    """
    located = locate_files(recipe, split, progress)
    return limit_split(recipe, split, read_coco(located.images_dir, located.annotations_file))


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
    collator, denoising = build_collator(recipe, model), recipe.model.query_groups.denoising
    if denoising is None:
        return collator
    noise = DenoisingNoise(
        contrastive=denoising.contrastive,
        budget=denoising.budget,
        groups=denoising.groups,
        label_redraw=denoising.label_redraw,
        box_noise=denoising.box_noise,
        max_targets=denoising.max_targets,
        labels=label_space.labels,
        seed=recipe.train.seed,
    )
    return replace(collator, noise=noise)
