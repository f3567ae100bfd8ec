"""One optimizer step over several micro-batches and processes."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from signal import SIGINT, SIGTERM
from typing import Any, Generic, Protocol, Self, TypeVar

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from msdetr.engine.batch_norm import RunningStatistics
from msdetr.engine.ema import WeightAverage
from msdetr.engine.optimizer import apply_lr_factor
from msdetr.engine.processes import Processes
from msdetr.engine.signals import StopRequest, StopSignalError
from msdetr.errors import DivergedError
from msdetr.seeding import derive_seed, seed_torch

_TERMS_SHOWN = 8


class MovableBatch(Protocol):
    """A batch that can be copied to a device."""

    def to(self, device: torch.device, *, non_blocking: bool = False) -> Self:
        """Return a copy on the device."""
        ...


BatchT = TypeVar("BatchT", bound=MovableBatch)
BatchT_contra = TypeVar("BatchT_contra", bound=MovableBatch, contravariant=True)


@dataclass(frozen=True)
class MicroBatchPlace:
    """Where a micro-batch stands in a run, whatever the number of processes.

    Attributes:
        seed: Seed of the run.
        epoch: Epoch, counted from 0.
        step: Optimizer steps finished before this one.
        index: Micro-batch within the step, counted over all processes.
    """

    seed: int
    epoch: int
    step: int
    index: int

    def derive_seed(self, purpose: str) -> int:
        """A seed that depends on (seed, step, micro-batch) and on what it is for."""
        return derive_seed(self.seed, purpose, self.step, self.index)


@dataclass(frozen=True)
class StepLoss:
    """Loss of one micro-batch, its share of the step's.

    Attributes:
        total: Scalar to differentiate, already divided by the step's normaliser.
        terms: Unweighted scalars by name; ``branch/...``, the same names in every micro-batch.
        weights: Factor of each term in the total.
    """

    total: Tensor
    terms: Mapping[str, Tensor]
    weights: Mapping[str, float]


class TrainingTask(Protocol[BatchT_contra]):
    """What is trained: the loop's only knowledge of the subject."""

    def count_targets(self, batch: BatchT_contra) -> int:
        """Targets of a micro-batch; called on the CPU, before the step's first forward."""
        ...

    def image_ids(self, batch: BatchT_contra) -> Sequence[int]:
        """Ids of the images of a micro-batch; called on the CPU."""
        ...

    def skipped(self, batch: BatchT_contra) -> Sequence[str]:
        """What was wrong with each image that was skipped for this micro-batch."""
        ...

    def loss(
        self, model: nn.Module, batch: BatchT_contra, *, normalizer: float, place: MicroBatchPlace
    ) -> StepLoss:
        """Run the model and compute the losses.

        Args:
            model: To be called, not asked for its parts: it may be wrapped.
            batch: On the model's device.
            normalizer: max(1, targets of the step over all micro-batches and processes).
            place: For random numbers that do not depend on the number of processes. Torch's
                global generators are already seeded for this micro-batch.
        """
        ...


@dataclass(frozen=True)
class StepReport:
    """What a step did, summed over its micro-batches and processes.

    Attributes:
        loss: Weighted total.
        terms: Unweighted terms.
        weights: Factor of each term in the total.
        grad_norm: Norm of the gradient before clipping; None where fp16 overflowed and the
            step was left out.
        lr: Learning rate of the first parameter group.
        num_images: Images of the step.
        skipped: What was wrong with each image that was skipped, in the order of the
            micro-batches.
    """

    loss: float
    terms: dict[str, float]
    weights: Mapping[str, float]
    grad_norm: float | None
    lr: float
    num_images: int
    skipped: tuple[str, ...] = ()

    def parts(self) -> dict[str, float]:
        """Weighted loss of every branch: the terms by the first part of their name.

        Branches whose names differ in a number only are added up: ``group_1`` and ``group_2`` as
        ``group``.
        """
        sums: dict[str, float] = {}
        for name, value in self.terms.items():
            branch = re.sub(r"_\d+", "", name.split("/", 1)[0])
            sums[branch] = sums.get(branch, 0.0) + value * self.weights[name]
        return sums


@dataclass(frozen=True)
class BadMicroBatch:
    """A micro-batch whose loss is not finite.

    Attributes:
        index: Micro-batch within the step, counted over all processes.
        image_ids: Its images.
        values: The terms that are not finite, as text (JSON has no nan).
    """

    index: int
    image_ids: list[int]
    values: dict[str, str]

    def __str__(self) -> str:
        """One line, with the first few terms."""
        shown = [f"{name} = {value}" for name, value in list(self.values.items())[:_TERMS_SHOWN]]
        more = len(self.values) - len(shown)
        rest = f", and {more} more" if more else ""
        images = ", ".join(map(str, self.image_ids))
        return f"micro-batch {self.index}, images {images}: {', '.join(shown)}{rest}"


class StepDivergedError(DivergedError):
    """A step whose loss or gradient is not finite; the weights are those before it.

    Args:
        place: The step (its first micro-batch on this process).
        micro_batches: Those with a loss that is not finite, of all processes; none if only the
            gradient is not.
    """

    def __init__(self, place: MicroBatchPlace, micro_batches: Sequence[BadMicroBatch]) -> None:
        self.step = place.step
        self.micro_batches = tuple(micro_batches)
        where = f"step {place.step + 1} (epoch {place.epoch + 1}) diverged"
        what = "the loss is not finite"
        if not micro_batches:
            what = "the losses are finite, but the norm of the gradient is not"
        super().__init__("\n  ".join([f"{where}: {what}", *map(str, micro_batches)]))


class StepRunner(Generic[BatchT]):
    """Computes gradients and updates the weights.

    The gradient is the sum over micro-batches and processes; the task divides by the step's
    normaliser.

    Args:
        accelerator: Device, precision and processes.
        model: Model as prepared by the accelerator.
        optimizer: Optimizer as prepared by the accelerator.
        task: What is trained.
        processes: To share losses.
        clip_norm: Largest norm of the gradient; None for no clipping.
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
        total_targets, num_images, skipped = self._count(batches, places)
        normalizer = max(1.0, total_targets)
        self._optimizer.zero_grad()
        losses = [
            self._backward(batch, place, normalizer, is_last=index == len(batches) - 1)
            for index, (batch, place) in enumerate(zip(batches, places, strict=True))
        ]
        self._statistics.share(len(batches) * self._processes.count)
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
        """Targets, images and skipped images of the step, of all processes."""
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
        self, batch: BatchT, place: MicroBatchPlace, normalizer: float, *, is_last: bool
    ) -> StepLoss:
        moved = batch.to(self._accelerator.device, non_blocking=True)
        with self._exchange(is_last=is_last):
            seed_torch(place.derive_seed("forward"))
            loss = self._task.loss(self._model, moved, normalizer=normalizer, place=place)
            # DistributedDataParallel averages gradients; the step wants their sum.
            self._accelerator.backward(loss.total * self._processes.count)
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
