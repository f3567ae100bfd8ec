"""Where a run is resumed from, and whether it is still the same run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msdetr.api.datasets import TrainingData
from msdetr.engine.checkpoint import read_info, resolve_checkpoint
from msdetr.engine.run_directory import RunDirectory
from msdetr.errors import CheckpointError, DataError, Problem
from msdetr.recipe import Recipe, load_recipe, recipe_from_dict, recipe_to_dict

_SHOWN_DIGITS = 12


def find_start(
    directory: RunDirectory, recipe: Recipe, *, resume: bool, resume_from: Path | None
) -> Path | None:
    """Find the checkpoint to continue from; None to start a new run.

    Raises:
        RunDirectoryError: The directory is not free.
        CheckpointError: There is no such checkpoint, or the run has another recipe.
    """
    if resume_from is not None:
        directory.check_free()
        checkpoint = RunDirectory(resume_from).find_last() or resolve_checkpoint(resume_from)
        _check_same_recipe(read_info(checkpoint).get("recipe"), recipe, checkpoint)
        return checkpoint
    if not resume or not directory.holds_run:
        directory.check_free()
        return None
    last = directory.find_last()
    if last is None:
        # Stopped before its first checkpoint: its settings are still in its recipe.
        begun = recipe_to_dict(load_recipe(directory.recipe_file))
        _check_same_recipe(begun, recipe, directory.recipe_file)
        return None
    _check_same_recipe(read_info(last).get("recipe"), recipe, last)
    return last


def check_same_annotations(checkpoint: Path, data: TrainingData) -> None:
    """Refuse to continue a run on other annotations than it began with.

    Args:
        checkpoint: Where the run is resumed from.
        data: What the resumed run would read.

    Raises:
        DataError: The content of an annotation file has changed.
        CheckpointError: The checkpoint does not say what the run began with.
    """
    recorded = _recorded_data(checkpoint)
    problems = []
    for split, now in data.describe().items():
        before = recorded.get(split, {}).get("annotations_sha256")
        if before != now["annotations_sha256"]:
            problems.append(
                Problem(
                    now["annotations"],
                    f"is not what the run began with: its SHA-256 was {_shorten(before)}, is "
                    f"{_shorten(now['annotations_sha256'])}; put the old file back, or start a "
                    "new run with `init_from`",
                )
            )
    if problems:
        raise DataError(str(checkpoint), problems)


def _recorded_data(checkpoint: Path) -> Mapping[str, Mapping[str, Any]]:
    recorded = read_info(checkpoint).get("data")
    if not isinstance(recorded, dict) or not all(isinstance(v, dict) for v in recorded.values()):
        raise CheckpointError(
            str(checkpoint),
            "does not say which annotations the run began with; start a new run with `init_from`",
        )
    return recorded


def _shorten(digest: object) -> str:
    return f"{str(digest)[:_SHOWN_DIGITS]}..." if digest else "not recorded"


def _check_same_recipe(saved_recipe: object, recipe: Recipe, source: Path) -> None:
    if isinstance(saved_recipe, Mapping):  # perhaps of an earlier version, with other fields
        saved_recipe = recipe_to_dict(recipe_from_dict(saved_recipe, str(source)))
    saved, asked = _flatten(saved_recipe), _flatten(recipe_to_dict(recipe))
    different = sorted(
        key
        for key in (saved.keys() | asked.keys()) - {"description"}
        if saved.get(key) != asked.get(key)
    )
    if different:
        raise CheckpointError(
            str(source),
            [
                Problem(
                    key,
                    f"was {saved.get(key)!r} in the run, is {asked.get(key)!r} now; "
                    "resume with the run's recipe.yaml",
                )
                for key in different
            ],
        )


def _flatten(tree: object, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {prefix: tree}
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat.update(_flatten(value, f"{prefix}.{key}" if prefix else str(key)))
    return flat
