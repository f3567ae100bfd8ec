"""What an optimizer step did, or why it was not done."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from msdetr.engine.task import MicroBatchPlace
from msdetr.errors import DivergedError

_TERMS_SHOWN = 8


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
