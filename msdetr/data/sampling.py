"""Which images go together: batches that do not depend on the number of processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from msdetr.errors import UsageError
from msdetr.seeding import seeded_generator

Key = tuple[int, int]
"""Epoch and position in the index: the key of a sample."""


@dataclass(frozen=True)
class EpochPlan:
    """Divides the shuffled images of every epoch into optimizer steps and micro-batches.

    Micro-batch j of a step holds the same images whatever the number of processes, and runs on
    process j mod ``num_processes``. Images that do not fill a last step are left out of the epoch;
    a data set smaller than one step is repeated, in its shuffled order, to fill it.

    Attributes:
        num_images: Images of the training set, at least 1.
        batch_size: Images per optimizer step, over all processes.
        images_per_forward: Images per micro-batch.
        seed: Seed of the run.
        repeats: Times that an epoch goes through the images.

    Raises:
        UsageError: If a number is below 1, or ``batch_size`` is not a multiple of
            ``images_per_forward``.
    """

    num_images: int
    batch_size: int
    images_per_forward: int
    seed: int
    repeats: int = 1

    def __post_init__(self) -> None:
        """Check the numbers."""
        for name in ("num_images", "batch_size", "images_per_forward", "repeats"):
            if getattr(self, name) < 1:
                raise UsageError(name, f"must be at least 1, got {getattr(self, name)}")
        if self.batch_size % self.images_per_forward:
            raise UsageError(
                "train.batch_size",
                f"must be a multiple of train.images_per_forward ({self.images_per_forward}), "
                f"got {self.batch_size}",
            )

    @property
    def num_steps(self) -> int:
        """Optimizer steps of an epoch."""
        return max(1, self.num_images * self.repeats // self.batch_size)

    @property
    def micro_batches_per_step(self) -> int:
        """Micro-batches of a step, over all processes."""
        return self.batch_size // self.images_per_forward

    def micro_batches_per_process(self, num_processes: int) -> int:
        """Micro-batches that each of ``num_processes`` processes runs in a step.

        Raises:
            UsageError: If they cannot be dealt evenly.
        """
        if self.micro_batches_per_step % num_processes:
            raise UsageError(
                "train.batch_size",
                f"{self.batch_size} images per step in micro-batches of {self.images_per_forward} "
                f"cannot be divided among {num_processes} processes; use a number of processes "
                f"that divides {self.micro_batches_per_step}, or another train.images_per_forward",
            )
        return self.micro_batches_per_step // num_processes

    def order(self, epoch: int) -> list[int]:
        """Return the positions of an epoch in order, ``num_steps * batch_size`` of them."""
        generator = seeded_generator("order", self.seed, epoch)
        shuffled: list[int] = torch.randperm(self.num_images, generator=generator).tolist()
        wanted = self.num_steps * self.batch_size
        repeats = -(-wanted // self.num_images)
        return (shuffled * repeats)[:wanted]

    def batches(
        self, epoch: int, rank: int = 0, num_processes: int = 1, *, first_step: int = 0
    ) -> Iterator[list[Key]]:
        """Yield the micro-batches of one process, step after step.

        Args:
            epoch: Epoch, counted from 0.
            rank: This process.
            num_processes: Number of processes.
            first_step: Step of the epoch to begin with, for resuming.

        Raises:
            UsageError: If micro-batches cannot be dealt evenly to the processes.
        """
        per_process = self.micro_batches_per_process(num_processes)
        order = self.order(epoch)
        for step in range(first_step, self.num_steps):
            for turn in range(per_process):
                first = (
                    step * self.batch_size + (turn * num_processes + rank) * self.images_per_forward
                )
                yield [(epoch, p) for p in order[first : first + self.images_per_forward]]


def eval_batches(
    positions: Sequence[int], batch_size: int, rank: int = 0, num_processes: int = 1
) -> Iterator[list[Key]]:
    """Yield the evaluation batches of one process.

    Batches are formed before they are dealt, batch j to process j mod ``num_processes``, because
    padding changes what group norm sees: predictions must not depend on the number of processes.

    Args:
        positions: Positions in the index, ascending (which is ascending image id).
        batch_size: Images per batch; the last one may be smaller.
        rank: This process.
        num_processes: Number of processes.
    """
    for first in range(rank * batch_size, len(positions), num_processes * batch_size):
        yield [(0, position) for position in positions[first : first + batch_size]]
