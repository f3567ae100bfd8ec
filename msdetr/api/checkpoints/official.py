"""Published checkpoints: loaded for a recipe, imported as checkpoints of ours, and written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights

from msdetr.api.checkpoints.loaded import (
    LoadedCheckpoint,
    check_free,
    checkpoint_info,
    load_checkpoint,
)
from msdetr.api.checkpoints.official_recipes import (
    check_arguments,
    explain_misfit,
    find_unpublished_backbone,
    find_unpublished_groups,
    fitting_recipes,
    is_placement_published,
)
from msdetr.build import build_model, groups_with_one_to_many
from msdetr.data.coco_file import load_annotations
from msdetr.data.labels import COCO91_CLASSES, LabelSpace
from msdetr.engine.checkpoint import INFO_FILE, save_checkpoint
from msdetr.engine.weights import unique_state
from msdetr.errors import CheckpointError, Problem, RecipeError, UsageError
from msdetr.interop.official import count_classes, find_mismatches, from_published, to_published
from msdetr.interop.published_file import read_published_file, write_published_file
from msdetr.recipe import ModelRecipe, QueryGroupsRecipe, load_recipe
from msdetr.terminal import LiteralConsole

# What the published code fixes where our recipes have a choice.
_PUBLISHED_NORMS = ("frozen_batch", "batch")  # one and the same in evaluation mode


def open_checkpoint(
    path: Path,
    *,
    recipe: str | None = None,
    overrides: Sequence[str] = (),
    with_extra_groups: bool = False,
) -> LoadedCheckpoint:
    """Load a checkpoint of ours, or a published ``.pth`` file for a recipe.

    Args:
        path: Checkpoint or run directory, or a published file.
        recipe: Name or path of the published file's recipe; None for a checkpoint of ours.
        overrides: Recipe fields to change, ``key=value``.
        with_extra_groups: Keep the query groups that only training has.

    Raises:
        CheckpointError: It cannot be read, or does not fit.
        RecipeError: The recipe or an override is invalid.
        UsageError: A recipe is named for a checkpoint that has its own, or none for a file.
    """
    if recipe is not None:
        if path.is_dir():
            raise UsageError("`recipe`", f"is for published .pth files; {path} has its own recipe")
        return load_official(path, recipe, overrides=overrides, with_extra_groups=with_extra_groups)
    if path.is_file():
        raise UsageError(str(path), _which_recipe(path))
    return load_checkpoint(path, overrides, with_extra_groups=with_extra_groups)


def load_official(
    path: Path,
    recipe: str,
    *,
    overrides: Sequence[str] = (),
    classes: Path | None = None,
    with_extra_groups: bool = False,
) -> LoadedCheckpoint:
    """Load a published ``.pth`` file; every tensor must fit. Nothing in it is executed.

    Args:
        path: The file.
        recipe: Name or path of the recipe that describes its model.
        overrides: Recipe fields to change, ``key=value``.
        classes: Annotation file with the categories; None for COCO's, if the file has 91
            classes.
        with_extra_groups: Keep the query groups that only training has.

    Returns:
        The model, whose info says which file it came from.

    Raises:
        CheckpointError: The file cannot be read or does not fit; every tensor at fault is named,
            and the recipe that fits if there is one.
        RecipeError: The recipe or an override is invalid.
        DataError: The file of the classes cannot be used.
    """
    resolved = load_recipe(recipe, overrides)
    unpublished = find_unpublished_backbone(resolved.model)
    if unpublished:
        raise RecipeError(recipe, unpublished)
    published = read_published_file(path)
    if published.notice:
        LiteralConsole(stderr=True).say(f"{path}: {published.notice}")
    num_classes = count_classes(published.state)
    with torch.random.fork_rng(devices=[]):
        model = build_model(
            resolved.model,
            num_classes or COCO91_CLASSES,
            one_to_many_groups=groups_with_one_to_many(resolved.supervision),
        )
    expected = model.state_dict()
    problems = find_mismatches(published.state, expected)
    problems += check_arguments(published, resolved)
    if problems:
        reason = explain_misfit(published, expected, recipe)
        raise CheckpointError(str(path), [Problem("", reason), *problems])
    label_space = _label_space(path, num_classes or COCO91_CLASSES, classes)
    model.load_state_dict(from_published(published.state, expected, str(path)))
    if not with_extra_groups:
        model.training_groups = None
    origin = {"file": path.name, "sha256": published.sha256, "arguments": published.arguments}
    info = {**checkpoint_info(resolved, label_space), "imported_from": origin}
    return LoadedCheckpoint(path, model.eval(), resolved, label_space, info)


def import_official(
    path: Path,
    recipe: str,
    output: Path,
    *,
    overrides: Sequence[str] = (),
    classes: Path | None = None,
    force: bool = False,
) -> LoadedCheckpoint:
    """Turn a published ``.pth`` file into a checkpoint of ours, which needs no recipe beside it.

    Args:
        path: The published file.
        recipe: Name or path of the recipe that describes its model.
        output: Directory of the checkpoint.
        overrides: Recipe fields to change, ``key=value``.
        classes: As for ``load_official``.
        force: Replace a checkpoint at ``output``.

    Raises:
        InvalidInputError: As for ``load_official``, or the output exists.
    """
    check_free(output, force=force)
    loaded = load_official(
        path, recipe, overrides=overrides, classes=classes, with_extra_groups=True
    )
    save_checkpoint(output, info=loaded.info, model=unique_state(loaded.model))
    return loaded


def export_official(loaded: LoadedCheckpoint, output: Path, *, force: bool = False) -> None:
    """Write a model as a ``.pth`` file that the published code loads.

    Args:
        loaded: The model, with all of its query groups.
        output: The file.
        force: Replace an existing file.

    Raises:
        CheckpointError: The published code has no such model, or query groups are missing.
        UsageError: The output exists.
        MsdetrError: It cannot be written.
        VerificationError: What was written differs from the model.
    """
    if output.is_dir():
        raise UsageError(str(output), "is a folder; `output` needs the name of a file")
    if output.exists() and not force:
        raise UsageError(str(output), "exists already; give another `output`, or `force=True`")
    problems = [*_unknown_to_published(loaded.recipe.model), *_missing_groups(loaded)]
    if problems:
        raise CheckpointError(str(loaded.path), problems)
    write_published_file(output, to_published(loaded.model.state_dict()))


def _which_recipe(path: Path) -> str:
    generic = "is a file; expected a checkpoint directory or a run directory"
    if path.with_name(INFO_FILE).is_file():
        return f"{generic}, such as {path.parent}"
    try:
        fitting = fitting_recipes(read_published_file(path))
    except CheckpointError:
        fitting = []
    named = f" (it fits {', '.join(fitting)})" if fitting else ""
    return f"{generic}; for a published .pth file name its recipe, too: `recipe=NAME`{named}"


def _label_space(path: Path, num_classes: int, classes: Path | None) -> LabelSpace:
    if classes is None and num_classes != COCO91_CLASSES:
        raise CheckpointError(
            str(path),
            f"has {num_classes} classes, not COCO's {COCO91_CLASSES}; name them with "
            "`classes=ANNOTATIONS.json`",
        )
    categories = _coco_categories() if classes is None else _read_categories(classes)
    ids = tuple(sorted(categories))
    try:
        return LabelSpace(ids, tuple(categories[id_] for id_ in ids), num_classes)
    except ValueError as error:
        raise CheckpointError(
            str(path), f"has {num_classes} classes, which {classes} does not fit: {error}"
        ) from error


def _coco_categories() -> dict[int, str]:
    names: list[str] = FasterRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
    return {id_: name for id_, name in enumerate(names) if id_ > 0 and name != "N/A"}


def _read_categories(annotations: Path) -> dict[int, str]:
    return {entry["id"]: entry["name"] for entry in load_annotations(annotations)["categories"]}


def _unknown_to_published(recipe: ModelRecipe) -> list[Problem]:
    published = ModelRecipe()
    found: list[tuple[str, object, Sequence[object]]] = [
        ("backbone.norm", recipe.backbone.norm, _PUBLISHED_NORMS),
        ("proposal_scale", recipe.proposal_scale, [published.proposal_scale]),
        ("position_temperature", recipe.position_temperature, [published.position_temperature]),
    ]
    problems = [
        Problem(f"model.{key}", f"is {value!r}, which the published code has not")
        for key, value, known in found
        if value not in known
    ]
    if not is_placement_published(recipe):
        reason = f"is {recipe.placement!r}, which the published code has not"
        problems.insert(0, Problem("model.placement", reason))
    if recipe.backbone.name == "resnet_tiny":
        problems.append(
            Problem("model.backbone.name", "is 'resnet_tiny', which the published code has not")
        )
    return [*problems, *find_unpublished_backbone(recipe), *find_unpublished_groups(recipe)]


def _missing_groups(loaded: LoadedCheckpoint) -> list[Problem]:
    has_none = loaded.recipe.model.query_groups == QueryGroupsRecipe()
    if has_none or loaded.model.training_groups is not None:
        return []
    reason = "are in the published model, but not in one loaded for inference"
    advice = "open the checkpoint with all its query groups"
    return [Problem("model.query_groups", f"{reason}; {advice}")]
