"""What is trained: the contract between the loop and its subject, all that the loop knows of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, Self, TypeVar

import torch
from torch import Tensor, nn

from msdetr.seeding import derive_seed


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
        """Derive a seed that depends on (seed, step, micro-batch) and on what it is for."""
        return derive_seed(self.seed, purpose, self.step, self.index)


@dataclass(frozen=True)
class StepLoss:
    """Loss of one micro-batch, its share of the step's.

    Attributes:
        total: Scalar to differentiate, already normalized by the targets of the whole step.
        terms: Unweighted scalars by name; ``branch/...``, the same names in every micro-batch.
        weights: Factor of each term in the total.
    """

    total: Tensor
    terms: Mapping[str, Tensor]
    weights: Mapping[str, float]


class TrainingTask(Protocol[BatchT_contra]):
    """What is trained: the loop's only knowledge of the subject."""

    def count_targets(self, batch: BatchT_contra) -> int:
        """Count targets of a micro-batch; called on the CPU, before the step's first forward."""
        ...

    def image_ids(self, batch: BatchT_contra) -> Sequence[int]:
        """Return the ids of the images of a micro-batch; called on the CPU."""
        ...

    def skipped(self, batch: BatchT_contra) -> Sequence[str]:
        """Return what was wrong with each image that was skipped for this micro-batch."""
        ...

    def loss(
        self, model: nn.Module, batch: BatchT_contra, *, num_targets: float, place: MicroBatchPlace
    ) -> StepLoss:
        """Run the model and compute the losses.

        Args:
            model: Only to be called, never asked for its parts: it may be wrapped.
            batch: On the model's device.
            num_targets: Targets of the step over all micro-batches and processes; may be 0.
            place: For random numbers that do not depend on the number of processes. Torch's
                global generators are already seeded for this micro-batch.
        """
        ...
