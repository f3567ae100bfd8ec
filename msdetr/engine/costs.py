"""What a training run has cost so far; a resumed run adds to it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from msdetr.errors import CheckpointError


@dataclass
class RunCosts:
    """What a training run has cost so far.

    Work that was done twice, because a run was killed after its last checkpoint, counts once:
    these are the costs of the steps and evaluations that the run's state is made of.

    Attributes:
        train_seconds: Wall-clock time of the finished optimizer steps, with the wait for their
            images.
        evaluation_seconds: Wall-clock time of the evaluations.
        images_seen: Training images of the finished steps, as often as they were seen.
        peak_memory_mib: Highest memory of any process so far: of a GPU what its allocator gave
            out, else the resident memory.
        step_flops: Floating-point operations of the first step's forward and backward passes,
            over all processes; None where they were not counted.
        image_flops: Floating-point operations of one image at inference; None likewise.
    """

    train_seconds: float = 0.0
    evaluation_seconds: float = 0.0
    images_seen: int = 0
    peak_memory_mib: float = 0.0
    step_flops: int | None = None
    image_flops: int | None = None

    @contextmanager
    def training(self) -> Iterator[None]:
        """Add the seconds of a step; those of one that fails count for nothing."""
        started = time.perf_counter()
        yield
        self.train_seconds += time.perf_counter() - started

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Add the seconds of an evaluation that does not fail."""
        started = time.perf_counter()
        yield
        self.evaluation_seconds += time.perf_counter() - started

    def note_memory(self, *peaks_mib: float) -> None:
        """Take the peaks of processes, in MiB, into account."""
        self.peak_memory_mib = max(self.peak_memory_mib, *peaks_mib)

    def to_dict(self) -> dict[str, Any]:
        """Return the costs as JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], source: str) -> Self:
        """Rebuild costs from ``to_dict``.

        Args:
            values: Empty for a run of a version that did not count its costs.
            source: The checkpoint, for the error.

        Raises:
            CheckpointError: There are unknown fields, or values are not numbers.
        """
        known = {field.name for field in fields(cls)}
        odd = sorted(set(values) - known)
        odd += [key for key in known & set(values) if not _is_amount(values[key])]
        if odd:
            raise CheckpointError(source, f"the run's costs have odd fields: {', '.join(odd)}")
        return cls(**values)


def _is_amount(value: object) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))
