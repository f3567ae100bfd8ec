"""Train from a recipe: the workflow behind ``msdetr train``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from msdetr.api.checkpoints.assigner_file import check_same_assigner
from msdetr.api.checkpoints.init_from import initialise_from
from msdetr.api.data_check import training_notes
from msdetr.api.datasets import load_training_data
from msdetr.api.training.duplicates import tell_duplicates
from msdetr.api.training.resume import check_same_annotations, find_start
from msdetr.api.training.run_report import report_run
from msdetr.api.training.session import TrainingSession
from msdetr.build import build_accelerator
from msdetr.data.batching import Batch
from msdetr.engine.checkpoint import read_info
from msdetr.engine.environment import collect_environment
from msdetr.engine.loop import Trainer
from msdetr.engine.processes import Processes
from msdetr.engine.run_directory import RunDirectory
from msdetr.engine.run_lock import holding_run
from msdetr.engine.run_state import RunState
from msdetr.errors import UsageError
from msdetr.recipe import Recipe, recipe_to_yaml


@dataclass(frozen=True)
class TrainResult:
    """Result of a training run.

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
        raise UsageError("`init_from`", "starts a new run; it cannot be combined with resuming")
    directory = RunDirectory(output)
    accelerator = build_accelerator(recipe.train, device=device, tracking_dir=output)
    with holding_run(directory, Processes(accelerator)):
        start = find_start(directory, recipe, resume=resume, resume_from=resume_from)
        # The embedded data set is generated once, not by every process.
        with accelerator.main_process_first():
            data = load_training_data(recipe)
        if start is not None:
            check_same_annotations(start, data)
        session = TrainingSession(recipe, data, accelerator, directory)
        trainer = _prepare(session, start, init_from, quiet=not accelerator.is_main_process)
        # Nothing can be rejected any more, and every process has checked the directory.
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            _begin(directory, recipe, is_resumed=resume and directory.holds_run)
        accelerator.wait_for_everyone()
        state = trainer.fit(notes=training_notes(recipe, data, session.criterion))
        if accelerator.is_main_process:
            duplicates = tell_duplicates(directory, recipe, data.val)
            report_run(directory, recipe, data.val, session.criterion, duplicates=duplicates)
    return TrainResult(output, state)


def _prepare(
    session: TrainingSession, start: Path | None, init_from: Path | None, *, quiet: bool
) -> Trainer[Batch]:
    """Load the weights that the run begins or goes on with; compose its loop."""
    if start is not None:
        check_same_assigner(read_info(start), session.criterion, str(start))
    elif init_from is not None:
        initialise_from(session.model, init_from, quiet=quiet)
    else:
        session.load_pretrained()
    trainer = session.trainer()
    if start is not None:
        trainer.resume(start)
    return trainer


def _begin(directory: RunDirectory, recipe: Recipe, *, is_resumed: bool) -> None:
    text = recipe_to_yaml(recipe)
    if is_resumed:
        directory.update_recipe(text)
    else:
        directory.create(recipe_text=text, environment=collect_environment())
