"""What a run writes down: rows of the metrics file, trackers, progress, log."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from accelerate import Accelerator

from msdetr.engine.costs import RunCosts
from msdetr.engine.environment import peak_memory_mib
from msdetr.engine.metrics_file import append_row, rewind_rows
from msdetr.engine.reporting import StepLine, TrainingReporter, logger
from msdetr.engine.run_directory import RunDirectory
from msdetr.engine.run_state import RunState
from msdetr.engine.step_report import StepReport
from msdetr.errors import MsdetrError


class RunRecords:
    """Writes a run's rows and reports its progress; silent on all but the main process.

    Args:
        accelerator: Has the trackers and knows the device.
        directory: Where the metrics file is.
        reporter: Shows the progress.
        log_every_steps: Steps between rows.
        total_steps: Optimizer steps of the whole run, to estimate the time left.
    """

    def __init__(
        self,
        *,
        accelerator: Accelerator,
        directory: RunDirectory,
        reporter: TrainingReporter,
        log_every_steps: int,
        total_steps: int,
    ) -> None:
        self.reporter = reporter
        self._accelerator = accelerator
        self._directory = directory
        self._every = log_every_steps
        self._total_steps = total_steps
        self._started = 0.0
        self._images = 0
        self._steps = 0

    @contextmanager
    def running(self, state: RunState) -> Iterator[None]:
        """Open everything for a run that goes on from ``state``."""
        if self._accelerator.is_main_process:
            rewind_rows(self._directory.metrics_file, state)
        if self._accelerator.log_with:
            # Points of steps that are done again would otherwise appear twice.
            options = {"tensorboard": {"purge_step": state.step + 1}}
            self._accelerator.init_trackers("tensorboard", init_kwargs=options)
        with self.reporter.running():
            try:
                yield
            except MsdetrError as error:
                logger.log(logging.ERROR, "%s", error)
                raise
            finally:
                for tracker in self._accelerator.trackers:
                    tracker.finish()

    def start_epoch(self, state: RunState) -> None:
        """Begin or go on with an epoch."""
        self.reporter.start_epoch(state.epoch, state.step_in_epoch)
        self._restart_clock()

    def step(self, state: RunState, report: StepReport) -> None:
        """Record a finished step; every few steps this writes a row."""
        self._images += report.num_images
        self._steps += 1
        self.reporter.advance(state.step_in_epoch)
        for fault in report.skipped:
            self.reporter.say(f"step {state.step}: skipped {fault}", logging.WARNING)
        if state.step % self._every or not self._accelerator.is_main_process:
            return
        elapsed = max(time.perf_counter() - self._started, 1e-9)
        line = StepLine(
            epoch=state.epoch,
            step_in_epoch=state.step_in_epoch,
            loss=report.loss,
            parts=report.parts(),
            lr=report.lr,
            images_per_second=self._images / elapsed,
            memory_mib=peak_memory_mib(self._accelerator.device),
            seconds_left=elapsed / self._steps * (self._total_steps - state.step),
        )
        self._restart_clock()
        self.reporter.show_step(line)
        values = {"lr": report.lr, "loss": report.loss, "terms": report.terms}
        speed = {"images_per_second": line.images_per_second, "memory_mib": line.memory_mib}
        self._write("step", state, {**values, "grad_norm": report.grad_norm, **speed})

    def epoch(
        self, state: RunState, lr: float, scores: Mapping[str, float | None], costs: RunCosts
    ) -> None:
        """Record an epoch that is trained and, where due, evaluated.

        Args:
            state: Before it moves on to the next epoch.
            lr: Learning rate of the first group in the last step.
            scores: Result of the epoch's evaluation; empty without one.
            costs: Of the run so far.
        """
        if not self._accelerator.is_main_process:
            return
        loss, terms = state.mean_losses()
        counts = {"skipped_images": state.skipped_images}
        values = {"lr": lr, "loss": loss, "terms": terms, **counts, **scores}
        self._write("epoch", state, {**values, "cost": costs.to_dict()})
        shown = "".join(f"  {k} {v:.3f}" for k, v in scores.items() if v is not None)
        mean = "" if loss is None else f"  mean loss {loss:.3f}"
        self.reporter.say(f"epoch {state.epoch + 1} done{mean}{shown}")

    def _write(self, kind: str, state: RunState, values: Mapping[str, Any]) -> None:
        row = {"kind": kind, "epoch": state.epoch, "step": state.step, **values}
        append_row(self._directory.metrics_file, row)
        nested = {**values["terms"], **values.get("cost", {})}
        flat = {k: v for k, v in {**values, **nested}.items() if isinstance(v, float)}
        self._accelerator.log({f"{kind}/{k}": v for k, v in flat.items()}, step=state.step)

    def _restart_clock(self) -> None:
        self._started, self._images, self._steps = time.perf_counter(), 0, 0
