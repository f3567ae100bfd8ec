"""One optimizer step over several micro-batches and processes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from signal import SIGINT, SIGTERM
from typing import Any, Generic

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from msdetr.engine.batch_norm import RunningStatistics
from msdetr.engine.ema import WeightAverage
from msdetr.engine.optimizer import apply_lr_factor
from msdetr.engine.processes import Processes
from msdetr.engine.signals import StopRequest, StopSignalError
from msdetr.engine.step_report import BadMicroBatch, StepDivergedError, StepReport
from msdetr.engine.task import BatchT, MicroBatchPlace, StepLoss, TrainingTask
from msdetr.seeding import seed_torch


class StepRunner(Generic[BatchT]):
    """Computes gradients and updates the weights.

    The gradient is the sum over micro-batches and processes; the task normalizes by the step's
    targets.

    Args:
        accelerator: Device, precision and processes.
        model: Model as prepared by the accelerator.
        optimizer: Optimizer as prepared by the accelerator.
        task: What is trained.
        processes: To share losses.
        clip_norm: Maximum norm of the gradient; None for no clipping.
        ema: Average to update after the step, or None.
        stop: What asks for the run's stop.
    """

    def __init__(
        self,
        *,
        accelerator: Accelerator,
        model: nn.Module,
        optimizer: Any,  # noqa: ANN401 - accelerate is not typed
        task: TrainingTask[BatchT],
        processes: Processes,
        clip_norm: float | None,
        ema: WeightAverage | None,
        stop: StopRequest,
    ) -> None:
        self._stop = stop
        self._accelerator = accelerator
        self._model = model
        # Found once: looking for them takes about a third of the time of clipping a small model.
        self._parameters = list(model.parameters())
        self._optimizer = optimizer
        self._task = task
        self._processes = processes
        self._clip_norm = math.inf if clip_norm is None else clip_norm
        self._ema = ema
        self._statistics = RunningStatistics(model, processes)

    def compute(
        self, batches: Sequence[BatchT], places: Sequence[MicroBatchPlace], *, lr_factor: float
    ) -> StepReport:
        """Compute the gradient of a step over this process's micro-batches.

        Nothing of the model's state changes, however this ends. The processes agree here,
        once per step, on whether to stop.

        Args:
            batches: This process's micro-batches of the step.
            places: Where they stand.
            lr_factor: What ``update`` will be called with.

        Raises:
            DivergedError: A loss or the gradient is not finite.
            StopSignalError: A process was asked to stop.
        """
        self._statistics.begin_step()
        try:
            return self._compute(batches, places, lr_factor)
        except BaseException:
            self._statistics.restore()
            raise

    def update(self, *, lr_factor: float) -> None:
        """Let the optimizer do the step whose gradient was computed last."""
        apply_lr_factor(self._optimizer, lr_factor)
        self._optimizer.step()
        self._statistics.finish_step()
        if self._ema is not None:
            self._ema.update()

    def _compute(
        self, batches: Sequence[BatchT], places: Sequence[MicroBatchPlace], lr_factor: float
    ) -> StepReport:
        num_targets, num_images, skipped = self._count(batches, places)
        self._optimizer.zero_grad()
        losses = [
            self._backward(batch, place, num_targets, is_last=index == len(batches) - 1)
            for index, (batch, place) in enumerate(zip(batches, places, strict=True))
        ]
        self._statistics.share(len(batches) * self._processes.num_processes)
        norm = self._accelerator.clip_grad_norm_(self._parameters, self._clip_norm)
        *rows, [grad_norm] = _to_host([_as_row(loss) for loss in losses], norm)
        bad = [
            self._describe(*entry)
            for entry in zip(batches, places, losses, rows, strict=True)
            if not all(map(math.isfinite, entry[-1]))
        ]
        total, *terms = self._agree(places[0], bad, rows, grad_norm)
        return StepReport(
            loss=total,
            terms=dict(zip(losses[0].terms, terms, strict=True)),
            weights=losses[0].weights,
            grad_norm=grad_norm if math.isfinite(grad_norm) else None,
            lr=float(self._optimizer.param_groups[0]["initial_lr"]) * lr_factor,
            num_images=num_images,
            skipped=skipped,
        )

    def _count(
        self, batches: Sequence[BatchT], places: Sequence[MicroBatchPlace]
    ) -> tuple[float, int, tuple[str, ...]]:
        """Count targets, images and skipped images of the step, of all processes."""
        targets = sum(self._task.count_targets(batch) for batch in batches)
        images = sum(len(self._task.image_ids(batch)) for batch in batches)
        skipped = [
            (place.index, line)
            for batch, place in zip(batches, places, strict=True)
            for line in self._task.skipped(batch)
        ]
        shared = self._processes.sum([targets, images, len(skipped)])
        total_targets, num_images, num_skipped = shared
        everyone = self._processes.gather(skipped) if num_skipped else []
        in_order = sorted((entry for share in everyone for entry in share), key=lambda e: e[0])
        return total_targets, int(num_images), tuple(line for _, line in in_order)

    def _backward(
        self, batch: BatchT, place: MicroBatchPlace, num_targets: float, *, is_last: bool
    ) -> StepLoss:
        moved = batch.to(self._accelerator.device, non_blocking=True)
        with self._exchange(is_last=is_last):
            seed_torch(place.derive_seed("forward"))
            loss = self._task.loss(self._model, moved, num_targets=num_targets, place=place)
            # DistributedDataParallel averages gradients; the step wants their sum.
            self._accelerator.backward(loss.total * self._processes.num_processes)
        self._statistics.take_micro_batch()
        return StepLoss(
            loss.total.detach(), {k: v.detach() for k, v in loss.terms.items()}, loss.weights
        )

    def _exchange(self, *, is_last: bool) -> AbstractContextManager[Any]:
        return nullcontext() if is_last else self._accelerator.no_sync(self._model)

    def _agree(
        self,
        place: MicroBatchPlace,
        bad: list[BadMicroBatch],
        rows: Sequence[Sequence[float]],
        grad_norm: float,
    ) -> list[float]:
        """Add up the losses of all processes, unless one of them diverged or is to stop."""
        # With fp16 an overflow of the gradient is usual: the scaler leaves the step out.
        bad_gradient = self._accelerator.scaler is None and not math.isfinite(grad_norm)
        asked = [self._stop.number == number for number in (SIGINT, SIGTERM)]
        losses = [0.0 if bad else math.fsum(column) for column in zip(*rows, strict=True)]
        shared = self._processes.sum([len(bad) + bad_gradient, *asked, *losses])
        num_bad, interrupted, terminated, *losses = shared
        if interrupted or terminated:
            raise StopSignalError(SIGTERM if terminated else SIGINT)
        if num_bad:
            everyone = [found for each in self._processes.gather(bad) for found in each]
            raise StepDivergedError(place, sorted(everyone, key=lambda entry: entry.index))
        return losses

    def _describe(
        self, batch: BatchT, place: MicroBatchPlace, loss: StepLoss, row: Sequence[float]
    ) -> BadMicroBatch:
        named = zip(["total", *loss.terms], row, strict=True)
        values = {name: str(value) for name, value in named if not math.isfinite(value)}
        return BadMicroBatch(place.index, [int(i) for i in self._task.image_ids(batch)], values)


def _as_row(loss: StepLoss) -> Tensor:
    return torch.stack([loss.total.float(), *(term.float() for term in loss.terms.values())])


def _to_host(rows: Sequence[Tensor], norm: Tensor) -> list[list[float]]:
    # One copy for everything: each would wait for the device.
    flat = torch.cat([*rows, norm.detach().float().reshape(1).to(rows[0].device)]).tolist()
    width = len(rows[0])
    return [flat[start : start + width] for start in range(0, len(flat), width)]
