"""Checkpoints that carry all it takes to use a model: recipe, classes, weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from msdetr.build import (
    build_collator,
    build_detection_settings,
    build_model,
    groups_with_one_to_many,
)
from msdetr.data.batching import Collator
from msdetr.data.labels import LabelSpace
from msdetr.engine.checkpoint import find_checkpoint, read_info, read_weights, resolve_checkpoint
from msdetr.engine.weights import load_weights
from msdetr.errors import CheckpointError, UsageError
from msdetr.evaluation.settings import DetectionSettings
from msdetr.model import DetectionModel
from msdetr.recipe import QueryGroupsRecipe, Recipe, recipe_from_dict, recipe_to_dict

_EXTRA_GROUPS = "training_groups."


@dataclass(frozen=True)
class LoadedCheckpoint:
    """A model ready to be used.

    Attributes:
        path: The checkpoint's directory.
        model: In evaluation mode, on the CPU; with averaged weights where the run kept them.
            Unless asked for, without the query groups that only training has.
        recipe: The resolved recipe of the run, with overrides applied, query groups and all.
        label_space: Classes.
        info: Content of ``checkpoint.json``.
    """

    path: Path
    model: DetectionModel
    recipe: Recipe
    label_space: LabelSpace
    info: dict[str, Any]

    @cached_property
    def collator(self) -> Collator:
        """What turns samples into batches for the model."""
        return build_collator(self.recipe, self.model)

    @cached_property
    def detection_settings(self) -> DetectionSettings:
        """How detections are made of the model's predictions."""
        return build_detection_settings(self.recipe, self.label_space)


def checkpoint_info(recipe: Recipe, label_space: LabelSpace) -> dict[str, Any]:
    """Return what every checkpoint stores of its run, as JSON values."""
    return {
        "recipe": recipe_to_dict(recipe),
        "classes": {
            "category_ids": list(label_space.category_ids),
            "names": list(label_space.names),
            "num_classes": label_space.num_classes,
        },
    }


def load_checkpoint(
    path: Path, overrides: Sequence[str] = (), *, with_extra_groups: bool = False
) -> LoadedCheckpoint:
    """Load a model from a checkpoint or a run directory (its best, else its last).

    Args:
        path: Checkpoint or run directory.
        overrides: Recipe fields to change, ``key=value``.
        with_extra_groups: Keep the query groups that only training has; detections are the same
            without them. Their weights alone may be missing from a checkpoint loaded without.

    Raises:
        CheckpointError: There is none, it is damaged, or its parts do not fit together.
        RecipeError: An override is invalid.
    """
    checkpoint = resolve_checkpoint(path)
    info = read_info(checkpoint)
    recipe = recipe_from_dict(_entry(info, "recipe", checkpoint), str(checkpoint), overrides)
    label_space = _label_space(_entry(info, "classes", checkpoint), checkpoint)
    model = _build(recipe, label_space.num_classes, with_extra_groups=with_extra_groups)
    weights = read_weights(checkpoint)
    if not with_extra_groups:
        weights = {n: value for n, value in weights.items() if not n.startswith(_EXTRA_GROUPS)}
    load_weights(model, weights, str(checkpoint))
    return LoadedCheckpoint(checkpoint, model.eval(), recipe, label_space, info)


def check_free(output: Path, *, force: bool = False) -> None:
    """Refuse to overwrite anything with a checkpoint; called before any work.

    Args:
        output: The checkpoint's directory.
        force: Allow to replace a checkpoint, but never anything else.

    Raises:
        UsageError: Something is there that must be kept.
    """
    if not output.exists():
        return
    if find_checkpoint(output) != output:
        raise UsageError(str(output), "exists and is no checkpoint; give another `output`")
    if not force:
        raise UsageError(str(output), "exists already; give another `output`, or `force=True`")


def _build(recipe: Recipe, num_classes: int, *, with_extra_groups: bool) -> DetectionModel:
    model = recipe.model
    if not with_extra_groups:
        model = model.model_copy(update={"query_groups": QueryGroupsRecipe()})
    # The start values are overwritten: drawing them must not disturb the caller's generator.
    with torch.random.fork_rng(devices=[]):
        return build_model(
            model, num_classes, one_to_many_groups=groups_with_one_to_many(recipe.supervision)
        )


def _entry(info: dict[str, Any], key: str, checkpoint: Path) -> dict[str, Any]:
    value = info.get(key)
    if not isinstance(value, dict):
        raise CheckpointError(str(checkpoint), f"its checkpoint.json lacks a valid {key!r}")
    return value


def _label_space(classes: dict[str, Any], checkpoint: Path) -> LabelSpace:
    try:
        return LabelSpace(
            tuple(int(value) for value in classes["category_ids"]),
            tuple(str(name) for name in classes["names"]),
            int(classes["num_classes"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            str(checkpoint), f"its checkpoint.json has no valid classes: {error}"
        ) from error
