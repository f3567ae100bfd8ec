"""Where a run is resumed from, and whether it is still the same run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msdetr.api.datasets import TrainingData
from msdetr.engine.checkpoint import read_info, resolve_checkpoint
from msdetr.engine.run_directory import RunDirectory
from msdetr.engine.run_state import RunState
from msdetr.errors import CheckpointError, DataError, Problem, RunDirectoryError
from msdetr.recipe import Recipe, load_recipe, recipe_from_dict, recipe_to_dict
from msdetr.recipe.differences import find_differences

_SHOWN_DIGITS = 12
_EPOCHS = "train.epochs"

MAY_CHANGE = frozenset(
    {
        "description",
        # Where the data lie; what they are is told by the digests of the annotations.
        "data.root",
        "data.train.images",
        "data.train.annotations",
        "data.val.images",
        "data.val.annotations",
        "data.allow_outside",
        "data.max_image_pixels",
        "data.num_workers",
        "train.log_every_steps",
        "train.keep_every_epochs",
        "train.max_seconds",
        "evaluation.every_epochs",
        "evaluation.batch_size",
    }
)
"""Recipe fields that a resumed run may have otherwise, as no weight depends on them; besides, all
of ``inspection``, and more epochs where the schedule does not depend on their number."""


def find_start(
    directory: RunDirectory, recipe: Recipe, *, resume: bool, resume_from: Path | None
) -> Path | None:
    """Find the checkpoint to continue from; None to start a new run.

    Raises:
        RunDirectoryError: The directory is not free, or its last checkpoint is gone.
        CheckpointError: There is no such checkpoint, it is damaged, or the run has another
            recipe: see ``MAY_CHANGE`` for what may differ.
    """
    if resume_from is not None:
        directory.check_free()
        checkpoint = RunDirectory(resume_from).find_last() or resolve_checkpoint(resume_from)
        _check_same_run(checkpoint, recipe)
        return checkpoint
    if not resume or not directory.holds_run:
        directory.check_free()
        return None
    last = directory.find_last()
    if last is None:
        _check_nothing_was_saved(directory)
        # Its settings are still in its recipe.
        begun = recipe_to_dict(load_recipe(directory.recipe_file))
        try:
            _check_same_recipe(begun, recipe, directory.recipe_file)
        except CheckpointError as error:
            raise _with_way_out(error, directory) from error
        return None
    try:
        _check_same_run(last, recipe)
    except CheckpointError as error:
        raise _with_way_out(error, directory) from error
    return last


def _check_same_run(checkpoint: Path, recipe: Recipe) -> None:
    info = read_info(checkpoint)
    finished = RunState.from_dict(info.get("run_state") or {}, str(checkpoint)).epoch
    _check_same_recipe(info.get("recipe"), recipe, checkpoint, finished_epochs=finished)


def _check_nothing_was_saved(directory: RunDirectory) -> None:
    """Refuse to begin a run anew whose last checkpoint was lost."""
    others = directory.other_checkpoints()
    if others:
        raise RunDirectoryError(
            str(directory.path),
            f"has no checkpoints/last any more, only {', '.join(each.name for each in others)}; "
            f"go on from {others[0]} with `resume_from` in another `output`",
        )


def _with_way_out(error: CheckpointError, directory: RunDirectory) -> CheckpointError:
    """Say that a run without any step can begin anew; name the checkpoints beside a damaged one."""
    if directory.is_untrained:
        hint = "no step was trained yet; start the run anew, without `resume`"
        return CheckpointError(error.source, [*error.problems, Problem("", hint)])
    others = directory.other_checkpoints()
    if not others or any(problem.where for problem in error.problems):
        return error
    hint = f"go on from {others[0]} with `resume_from` in another `output`"
    return CheckpointError(error.source, [*error.problems, Problem("", hint)])


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


def _check_same_recipe(
    saved_recipe: object, recipe: Recipe, source: Path, *, finished_epochs: int = 0
) -> None:
    if not isinstance(saved_recipe, Mapping):
        raise CheckpointError(str(source), "does not say with which recipe it was trained")
    # Perhaps of an earlier version, with other fields.
    saved = recipe_from_dict(saved_recipe, str(source))
    changed = (
        (each, _refuse_change(each.key, recipe, finished_epochs))
        for each in find_differences(saved, recipe)
    )
    problems = [
        Problem(each.key, f"was {each.first!r} in the run, is {each.second!r} now; {advice}")
        for each, advice in changed
        if advice
    ]
    if problems:
        raise CheckpointError(str(source), problems)


def _refuse_change(key: str, recipe: Recipe, finished_epochs: int) -> str | None:
    """Return what to do instead of changing a field; None where it may change."""
    if key == _EPOCHS:
        if recipe.train.epochs < finished_epochs:
            return f"{finished_epochs} epochs are finished; give at least as many"
        if recipe.train.schedule == "cosine":
            return "a cosine schedule depends on it; resume with the run's recipe.yaml"
        return None
    if key in MAY_CHANGE or key.split(".", maxsplit=1)[0] == "inspection":
        return None
    return "resume with the run's recipe.yaml"
