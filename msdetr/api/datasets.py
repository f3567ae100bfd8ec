"""The data sets of a training run or an evaluation, ready to be loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from msdetr.api.progress import counting
from msdetr.build import (
    build_eval_dataset,
    build_label_space,
    build_train_dataset,
    read_split,
)
from msdetr.data.coco_file import load_annotations
from msdetr.data.coco_index import CocoIndex, CocoSplit, locate_split, read_coco
from msdetr.data.coco_values import READINGS
from msdetr.data.dataset import DetectionDataset
from msdetr.data.labels import LabelSpace
from msdetr.errors import DataError, Problem, UsageError, counted
from msdetr.recipe import DataRecipe, Recipe
from msdetr.terminal import LiteralConsole


@dataclass(frozen=True)
class EvaluationData:
    """Images to evaluate on, with their ground truth.

    Attributes:
        dataset: Images with the evaluation resize.
    """

    dataset: DetectionDataset

    @cached_property
    def ground_truth(self) -> Mapping[str, Any]:
        """Content of the annotation file."""
        return load_annotations(self.dataset.index.annotations_file)

    @property
    def image_ids(self) -> list[int]:
        """Ids of the images."""
        ids: list[int] = self.dataset.index.image_ids.tolist()
        return ids


@dataclass(frozen=True)
class TrainingData:
    """What a training run reads.

    Attributes:
        train: Images with augmentation.
        val: Images to evaluate on.
        label_space: Classes, those of the training annotations.
        overfit: Images that both splits are limited to, without augmentation; None usually.
    """

    train: DetectionDataset
    val: EvaluationData
    label_space: LabelSpace
    overfit: int | None = None

    @property
    def indices(self) -> dict[str, CocoIndex]:
        """Images and targets by split."""
        return {"train": self.train.index, "val": self.val.dataset.index}

    def describe(self) -> dict[str, dict[str, str]]:
        """Return the annotation files and their hashes by split, as JSON values."""
        return {
            split: {
                "annotations": str(index.annotations_file),
                "annotations_sha256": index.annotations_sha256,
            }
            for split, index in self.indices.items()
        }

    def lines(self) -> list[str]:
        """Say in plain words what each split holds, and what of it is left out."""
        return [
            f"{name}: {counted(len(index), 'image')}, "
            f"{index.num_images_without_targets} without targets; "
            f"{counted(index.num_targets, 'target')}; left out: {index.num_crowd} crowd, "
            f"{index.num_without_area} without area"
            for name, index in self.indices.items()
        ]


def load_training_data(recipe: Recipe, *, overfit: int | None = None) -> TrainingData:
    """Read the annotations of a recipe's data set.

    Args:
        recipe: Names the data set and its transforms.
        overfit: Train and evaluate on the first so many training images, both without
            augmentation; None for training as the recipe says.

    Raises:
        DataError: Something is missing or malformed, or the splits have different classes.
    """
    with counting("generating shapes") as progress:
        train_index = read_split(recipe.data, "train", progress)
    label_space = build_label_space(recipe.data, train_index)
    if overfit is not None:
        few = build_eval_dataset(recipe, train_index.limit(overfit), label_space)
        return TrainingData(few, EvaluationData(few), label_space, overfit)
    return TrainingData(
        train=build_train_dataset(recipe, train_index, label_space),
        val=_evaluation_data(read_split(recipe.data, "val"), recipe, label_space),
        label_space=label_space,
    )


def load_evaluation_data(
    recipe: Recipe, label_space: LabelSpace, data: str | None = None
) -> EvaluationData:
    """Read the annotations of the images to evaluate on.

    Args:
        recipe: Of the model.
        label_space: Classes of the model.
        data: Instead of the recipe's: a root in COCO's layout, or "IMAGES,ANNOTATIONS.json".

    Raises:
        DataError: Something is missing or malformed, or the data has classes unknown to the
            model.
        UsageError: ``data`` names neither.
    """
    return _evaluation_data(find_index(recipe.data, data), recipe, label_space)


def say_readings(data: EvaluationData) -> None:
    """Warn of annotations that were not as COCO defines them, once per kind."""
    console = LiteralConsole(stderr=True)
    for finding in data.dataset.index.findings:
        if finding.check in READINGS:
            console.say(f"warning: {finding.line()}")


def find_index(recipe: DataRecipe, data: str | None) -> CocoIndex:
    """Read the annotations of the images to evaluate on; see :func:`load_evaluation_data`."""
    if data is None:
        with counting("generating shapes") as progress:
            return read_split(recipe, "val", progress)
    split = find_split(data)
    return read_coco(split.images_dir, split.annotations_file)


def find_split(data: str) -> CocoSplit:
    """Find images and annotations of "ROOT" in COCO's layout or "IMAGES,ANNOTATIONS.json".

    Raises:
        DataError: The root lacks them.
        UsageError: It is neither.
    """
    root = Path(data)
    images, comma, annotations = data.rpartition(",")
    if root.is_dir() or (not comma and not root.exists()):
        return locate_split("val", root=root)
    if not images or not annotations:
        raise UsageError(
            "`data`",
            "expected a root in COCO's layout, or image folder and annotation file separated by "
            f"a comma, got {data!r}",
        )
    return CocoSplit(Path(images), Path(annotations))


def _evaluation_data(index: CocoIndex, recipe: Recipe, label_space: LabelSpace) -> EvaluationData:
    check_names(index, label_space)
    return EvaluationData(build_eval_dataset(recipe, index, label_space))


def check_names(index: CocoIndex, label_space: LabelSpace) -> None:
    """Compare the names of the classes in use.

    Raises:
        DataError: A category id stands for another class than in the model.
    """
    known = dict(zip(label_space.category_ids, label_space.names, strict=True))
    used = set(np.unique(index.category_ids).tolist())
    problems = [
        Problem(f"category {c.id}", f"is {c.name!r} here, but {known[c.id]!r} in the model")
        for c in index.categories
        if c.id in used and known.get(c.id, c.name) != c.name
    ]
    if problems:
        raise DataError(str(index.annotations_file), problems)
