"""The training loop: ``fit`` runs epochs, an epoch runs steps, and all of it can be resumed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Generic

from accelerate import Accelerator
from torch import nn
from torch.optim import Optimizer

from msdetr.engine.checkpoint import (
    has_averaged_weights,
    read_info,
    read_training_state,
    read_weights,
    save_checkpoint,
)
from msdetr.engine.costs import RunCosts
from msdetr.engine.ema import WeightAverage, evaluation_weights
from msdetr.engine.environment import peak_memory_mib
from msdetr.engine.failures import writing_run
from msdetr.engine.optimizer import apply_lr_factor
from msdetr.engine.processes import Processes
from msdetr.engine.records import RunRecords
from msdetr.engine.recovery import Recovery
from msdetr.engine.reporting import TrainingReporter
from msdetr.engine.roll_call import RollCall
from msdetr.engine.run_directory import RunDirectory
from msdetr.engine.run_state import RunState
from msdetr.engine.schedule import Schedule
from msdetr.engine.settings import TrainerSettings
from msdetr.engine.signals import StopRequest
from msdetr.engine.step import StepRunner
from msdetr.engine.step_report import StepDivergedError, StepReport
from msdetr.engine.task import BatchT, MicroBatchPlace, TrainingTask
from msdetr.engine.training_state import collect_training_state, restore_training_state
from msdetr.engine.weights import load_weights, unique_state
from msdetr.errors import CheckpointError, DataError, UsageError
from msdetr.seeding import seed_torch

Evaluate = Callable[[nn.Module, RunCosts], Mapping[str, float | None]]
Inspect = Callable[[nn.Module, int], object]
CountFlops = Callable[[BatchT], int | None]
LoaderFactory = Callable[[int, int], Iterable[BatchT]]


class Trainer(Generic[BatchT]):
    """Trains a model, saving, evaluating and reporting along the way.

    Micro-batch j of a step runs on process j mod (number of processes), so that a run's result
    does not depend on how many there are.

    Args:
        accelerator: Device, precision, processes and trackers.
        model: The model; trained in place.
        optimizer: Optimizer over the model's parameters, its groups with ``initial_lr``.
        schedule: Learning-rate factors.
        task: What is trained.
        loader_for_epoch: ``(epoch, start_step)`` to this process's micro-batches of the epoch
            from that optimizer step on, in order.
        settings: Numbers of the training run.
        run_directory: Where the run is kept; must exist.
        info: JSON values for every checkpoint: recipe, class names and the like.
        evaluate: Called on every process with the model in evaluation mode and the run's costs,
            to which it adds its own; the main process's result counts. None for no evaluation.
        ema: Average of the model's weights, which is then what is evaluated.
        reporter: Shows progress; by default on stderr.

    Raises:
        UsageError: The micro-batches cannot be dealt evenly to the processes.
    """

    def __init__(
        self,
        *,
        accelerator: Accelerator,
        model: nn.Module,
        optimizer: Optimizer,
        schedule: Schedule,
        task: TrainingTask[BatchT],
        loader_for_epoch: LoaderFactory[BatchT],
        settings: TrainerSettings,
        run_directory: RunDirectory,
        info: Mapping[str, Any],
        evaluate: Evaluate | None = None,
        ema: WeightAverage | None = None,
        reporter: TrainingReporter | None = None,
    ) -> None:
        self.state = RunState()
        self.costs = RunCosts()
        self.model = model
        self.settings = settings
        self._accelerator = accelerator
        self._processes = Processes(accelerator)
        self._roll_call = RollCall(self._processes)
        self._check_split()
        self._schedule = schedule
        self._task = task
        self._loader_for_epoch = loader_for_epoch
        self._directory = run_directory
        self._info = dict(info)
        self._evaluate_model = evaluate
        self._count_flops: CountFlops[BatchT] | None = None
        self._inspect_model: Inspect | None = None
        self._ema = ema
        self._stop = StopRequest(is_shared=self._processes.num_processes > 1)
        self._records = RunRecords(
            accelerator=accelerator,
            directory=run_directory,
            reporter=reporter or self._default_reporter(),
            log_every_steps=settings.log_every_steps,
            total_steps=settings.epochs * settings.steps_per_epoch,
        )
        self._recovery = Recovery(
            save=self.save,
            directory=run_directory,
            reporter=self._records.reporter,
            processes=self._processes,
            roll_call=self._roll_call,
            stop=self._stop,
        )
        self._prepare(optimizer)

    def inspect_epochs(self, inspect: Inspect) -> None:
        """Call ``inspect`` on the main process after every epoch; its failures change nothing.

        Args:
            inspect: Gets the model in evaluation mode and the number of finished epochs.
        """
        self._inspect_model = inspect

    def count_flops(self, count: CountFlops[BatchT]) -> None:
        """Record the floating-point operations of the first step.

        Args:
            count: Counts a micro-batch's forward and backward pass, or returns None.
        """
        self._count_flops = count

    def resume(self, checkpoint: Path) -> None:
        """Continue from a checkpoint of the same run; call before ``fit``.

        Raises:
            CheckpointError: It is damaged or belongs to another model or training run.
        """
        source = str(checkpoint)
        info = read_info(checkpoint)
        self.state = RunState.from_dict(info.get("run_state") or {}, source)
        self.costs = RunCosts.from_dict(info.get("costs") or {}, source)
        load_weights(self.model, read_weights(checkpoint, averaged=False), source)
        if self._ema is not None and has_averaged_weights(checkpoint):
            try:
                self._ema.load_state_dict(read_weights(checkpoint))
            except ValueError as error:
                raise CheckpointError(
                    source, f"its averaged weights do not fit: {error}"
                ) from error
        restore_training_state(
            read_training_state(checkpoint),
            optimizer=self._optimizer,
            scaler=self._accelerator.scaler,
            seed=self.settings.seed,
            source=source,
        )
        last_step = max(0, self.state.step - 1)
        factor = self._schedule.factor(step=last_step, epoch=self.state.epoch)
        apply_lr_factor(self._optimizer, factor)

    def fit(self, notes: Sequence[str] = ()) -> RunState:
        """Train to the end of the last epoch, or until the run's seconds are spent.

        Args:
            notes: Lines to print and log before the first step.

        Returns:
            The final state, with the last and the best scores.

        Raises:
            InterruptedRunError: A signal stopped the run, after its state was saved.
            DivergedError: A loss or gradient is not finite; the state before the step is left in
                the run's ``diverged``, so that the step can be repeated.
            MsdetrError: The run's files could not be written, a data worker died, or another
                process was lost.
        """
        running = self._records.running(self.state)
        with self._stop, self._roll_call, writing_run(self._directory), running:
            for note in notes:
                self._records.reporter.say(note)
            try:
                while self.state.epoch < self.settings.epochs and not self._time_is_up():
                    self.run_epoch()
            except StepDivergedError as error:
                self._recovery.keep_divergence(error)
                self._processes.wait()
                raise
        return self.state

    def run_epoch(self) -> None:
        """Run the rest of the epoch under way, as far as there is time, evaluate and save."""
        self.model.train()
        self._records.start_epoch(self.state)
        steps = self._steps_of_epoch()
        num_steps = self.settings.steps_per_epoch
        while self.state.step_in_epoch < num_steps and not self._time_is_up():
            with self.costs.training():
                with self._recovery.undone_on_failure(self.state):
                    batches = self._processes.together(lambda: next(steps))
                report = self.train_step(batches)
            self.costs.images_seen += report.num_images
            # First of all: whatever stops the run from here on, the step's row is there.
            self._records.step(self.state, report)
            self._count_once(batches)
        scores = self._evaluate_if_due()
        self._inspect_epoch()
        is_best = self.state.record_scores(scores, self.settings.score) if scores else False
        self._measure_memory()
        lr = float(self._optimizer.param_groups[0]["lr"])
        self._records.epoch(self.state, lr, scores, self.costs)
        self.state.finish_epoch()
        self._save_epoch(is_best=is_best)

    def train_step(self, batches: Sequence[BatchT]) -> StepReport:
        """Do one optimizer step over this process's micro-batches and count it.

        A stop that is asked for, or a failure, before the weights are touched discards the step:
        the state as of the last finished one is saved.

        Raises:
            DivergedError: A loss or gradient is not finite; the weights are unchanged.
            InterruptedRunError: A signal stopped the run.
        """
        factor = self._schedule.factor(step=self.state.step, epoch=self.state.epoch)
        with self._recovery.undone_on_failure(self.state):
            report = self._runner.compute(batches, self._places(), lr_factor=factor)
        self._runner.update(lr_factor=factor)
        self.state.finish_step(report.loss, report.terms, len(report.skipped))
        return report

    def save(self, directory: Path, **more_info: object) -> None:
        """Write a checkpoint of the present state (main process only; others do nothing).

        Args:
            directory: The checkpoint; an older one there is replaced.
            more_info: Further JSON values for this checkpoint.

        Raises:
            MsdetrError: It cannot be written; an older one is left as it was.
        """
        if not self._processes.is_main:
            return
        save_checkpoint(
            directory,
            info={
                **self._info,
                **more_info,
                "scores": self.state.scores,
                "run_state": self.state.to_dict(),
                "costs": self.costs.to_dict(),
            },
            model=unique_state(self.model),
            ema=None if self._ema is None else self._ema.state_dict(),
            training_state=collect_training_state(
                optimizer=self._optimizer,
                scaler=self._accelerator.scaler,
                seed=self.settings.seed,
            ),
        )

    def _check_split(self) -> None:
        total, num_processes = self.settings.micro_batches_per_step, self._processes.num_processes
        if total % num_processes:
            raise UsageError(
                "processes",
                f"{total} micro-batches per optimizer step cannot be dealt evenly to "
                f"{num_processes} processes; change their number, train.batch_size or "
                "train.images_per_forward",
            )

    def _default_reporter(self) -> TrainingReporter:
        return TrainingReporter(
            epochs=self.settings.epochs,
            steps_per_epoch=self.settings.steps_per_epoch,
            log_file=self._directory.log_file,
            quiet=not self._processes.is_main,
        )

    def _prepare(self, optimizer: Optimizer) -> None:
        if self.settings.compile_model:
            self.model.compile()
        wrapped, self._optimizer = self._accelerator.prepare(self.model, optimizer)
        self._processes.fix_order_of_gradients(wrapped)
        if self._ema is not None:
            self._ema.to(self._accelerator.device)
        self._runner = StepRunner(
            accelerator=self._accelerator,
            model=wrapped,
            optimizer=self._optimizer,
            task=self._task,
            processes=self._processes,
            clip_norm=self.settings.clip_norm,
            ema=self._ema,
            stop=self._stop,
        )

    def _places(self) -> list[MicroBatchPlace]:
        indices = range(
            self._processes.rank,
            self.settings.micro_batches_per_step,
            self._processes.num_processes,
        )
        return [
            MicroBatchPlace(self.settings.seed, self.state.epoch, self.state.step, index)
            for index in indices
        ]

    def _steps_of_epoch(self) -> Iterator[list[BatchT]]:
        start = self.state.step_in_epoch
        # Loaders draw their workers' seeds from torch's global generator.
        seed_torch(self.settings.seed, "loader", self.state.epoch)
        batches = iter(self._loader_for_epoch(self.state.epoch, start))
        per_step = self.settings.micro_batches_per_step // self._processes.num_processes
        for step in range(start, self.settings.steps_per_epoch):
            group = list(islice(batches, per_step))
            if len(group) < per_step:
                raise DataError(
                    f"epoch {self.state.epoch + 1}",
                    f"the data ended in step {step + 1} of {self.settings.steps_per_epoch}",
                )
            yield group

    def _time_is_up(self) -> bool:
        """Tell whether the run's seconds are spent; all processes agree."""
        limit = self.settings.max_seconds
        if limit is None:
            return False
        return self._processes.broadcast(self.costs.train_seconds) >= limit

    def _count_once(self, batches: Sequence[BatchT]) -> None:
        """Count the operations of the first step that this run does."""
        count, self._count_flops = self._count_flops, None
        if count is None or self.costs.step_flops is not None:
            return
        with self._recovery.undone_on_failure(self.state):
            shares = self._processes.gather([count(batch) for batch in batches])
        counted = [each for share in shares for each in share if each is not None]
        if len(counted) == self.settings.micro_batches_per_step:
            self.costs.step_flops = sum(counted)

    def _measure_memory(self) -> None:
        with self._recovery.undone_on_failure(self.state):
            everyone = self._processes.gather(peak_memory_mib(self._accelerator.device))
        self.costs.note_memory(*everyone)

    def _evaluate_if_due(self) -> dict[str, float | None]:
        done = self.state.epoch + 1
        due = done % self.settings.evaluate_every_epochs == 0 or done == self.settings.epochs
        if self._evaluate_model is None or not (due or self._time_is_up()):
            return {}
        with self._recovery.evaluating(self.state):
            return self._processes.broadcast(self._evaluate(self._evaluate_model))

    def _inspect_epoch(self) -> None:
        if self._inspect_model is None or not self._processes.is_main:
            return
        try:
            with evaluation_weights(self.model, self._ema):
                self._inspect_model(self.model, self.state.epoch + 1)
        except Exception as failure:  # an observer must not end a training run
            self._records.reporter.say(f"this epoch was not inspected: {failure}")

    def _evaluate(self, evaluate: Evaluate) -> dict[str, float | None]:
        with evaluation_weights(self.model, self._ema):
            scores = evaluate(self.model, self.costs)
        return {
            key: None if value is None or not math.isfinite(value) else float(value)
            for key, value in scores.items()
        }

    def _save_epoch(self, *, is_best: bool) -> None:
        if is_best:
            self.save(self._directory.best)
        keep = self.settings.keep_every_epochs
        if keep is not None and self.state.epoch % keep == 0:
            self.save(self._directory.epoch_checkpoint(self.state.epoch))
        # The last one at the end: until then a resumed run does the same again.
        self.save(self._directory.last)
