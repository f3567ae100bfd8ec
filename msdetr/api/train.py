"""Training from a recipe: the workflow behind ``msdetr train``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msdetr.api.datasets import load_training_data
from msdetr.api.init_from import initialise_from
from msdetr.api.session import TrainingSession
from msdetr.engine.checkpoint import read_info, resolve_checkpoint
from msdetr.engine.environment import collect_environment
from msdetr.engine.processes import create_accelerator
from msdetr.engine.run_directory import RunDirectory
from msdetr.engine.state import RunState
from msdetr.errors import CheckpointError, Problem, UsageError
from msdetr.recipe import Recipe, recipe_to_dict, recipe_to_yaml


@dataclass(frozen=True)
class TrainResult:
    """What a training came to.

    Attributes:
        output: The run's directory.
        state: Final state, with the last and the best scores.
    """

    output: Path
    state: RunState


def train(
    recipe: Recipe,
    *,
    output: Path,
    resume: bool = False,
    resume_from: Path | None = None,
    init_from: Path | None = None,
    device: str = "auto",
) -> TrainResult:
    """Train a model as a recipe says.

    Args:
        recipe: What to train and how.
        output: Directory of the run; must be new or empty unless the run in it is resumed.
        resume: Continue the run in ``output`` if it holds one; start it otherwise.
        resume_from: Continue from this checkpoint or run, in a new ``output``.
        init_from: Start from the weights of this checkpoint, ours or a published ``.pth``.
        device: "auto", "cpu", "cuda" or "cuda:N".

    Returns:
        Where the run is, and its scores.

    Raises:
        InvalidInputError: Recipe, data, checkpoint or directory cannot be used as asked.
        DivergedError: A loss is not finite.
        InterruptedRunError: A signal stopped the run after its state was saved.
    """
    if init_from is not None and (resume or resume_from is not None):
        raise UsageError("--init-from", "starts a new run; it cannot be combined with resuming")
    directory = RunDirectory(output)
    start = find_start(directory, recipe, resume=resume, resume_from=resume_from)
    accelerator = create_accelerator(
        device=device, precision=recipe.train.precision, tracking_dir=output
    )
    # The embedded data set is generated once, not by every process.
    with accelerator.main_process_first():
        data = load_training_data(recipe)
    session = TrainingSession(recipe, data, accelerator, directory)
    if init_from is not None:
        initialise_from(session.model, init_from, quiet=not accelerator.is_main_process)
    elif start is None:
        session.load_pretrained()
    trainer = session.trainer()
    if start is not None:
        trainer.resume(start)
    # Nothing can be refused any more, and every process has looked at the directory.
    accelerator.wait_for_everyone()
    if accelerator.is_main_process and not (resume and directory.holds_run):
        directory.create(recipe_text=recipe_to_yaml(recipe), environment=collect_environment())
    accelerator.wait_for_everyone()
    return TrainResult(output, trainer.fit(notes=data.lines()))


def find_start(
    directory: RunDirectory, recipe: Recipe, *, resume: bool, resume_from: Path | None
) -> Path | None:
    """Find the checkpoint to continue from; None to start anew.

    Raises:
        RunDirectoryError: The directory is not free, or its run has another recipe.
        CheckpointError: There is no such checkpoint, or it is of another recipe.
    """
    if resume_from is not None:
        directory.check_free()
        checkpoint = _last_checkpoint(resume_from)
        _check_same_recipe(read_info(checkpoint), recipe, checkpoint)
        return checkpoint
    if not resume or not directory.holds_run:
        directory.check_free()
        return None
    last = directory.find_last()
    if last is not None:
        _check_same_recipe(read_info(last), recipe, last)
    return last


def _last_checkpoint(path: Path) -> Path:
    return RunDirectory(path).find_last() or resolve_checkpoint(path)


def _check_same_recipe(info: dict[str, Any], recipe: Recipe, checkpoint: Path) -> None:
    saved, asked = _flatten(info.get("recipe")), _flatten(recipe_to_dict(recipe))
    different = sorted(
        key for key in saved.keys() | asked.keys() if saved.get(key) != asked.get(key)
    )
    if different:
        raise CheckpointError(
            str(checkpoint),
            [
                Problem(
                    key,
                    f"was {saved.get(key)!r} in the run, is {asked.get(key)!r} now; "
                    "resume with the run's recipe.yaml",
                )
                for key in different
                if key != "description"
            ],
        )


def _flatten(tree: Any, prefix: str = "") -> dict[str, Any]:  # noqa: ANN401 - JSON values
    if not isinstance(tree, dict):
        return {prefix: tree}
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat.update(_flatten(value, f"{prefix}.{key}" if prefix else str(key)))
    return flat
