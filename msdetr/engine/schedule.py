"""Learning-rate schedules as a pure function of the step and the epoch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Factor on every group's learning rate.

    Attributes:
        kind: "step" drops at epochs; "cosine" decays to 0 over ``total_steps``.
        drop_epochs: The rate drops once this many epochs are finished ("step" only).
        drop_factor: Factor of each drop, in (0, 1].
        warmup_steps: The rate first rises linearly over this many steps; 0 for none.
        total_steps: Optimizer steps of the whole run ("cosine" only).

    Source: the published recipe, "lr x 0.1 after epoch 11" of 12: ``drop_epochs=(11,)``.
    """

    kind: Literal["step", "cosine"] = "step"
    drop_epochs: Sequence[int] = field(default=())
    drop_factor: float = 0.1
    warmup_steps: int = 0
    total_steps: int = 1

    def factor(self, *, step: int, epoch: int) -> float:
        """Return the factor for the step that follows ``step`` finished ones, in ``epoch``.

        Args:
            step: Finished optimizer steps since the start of the run.
            epoch: Epoch under way, counted from 0.
        """
        warmup = min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else 1.0
        if self.kind == "cosine":
            progress = min(1.0, step / self.total_steps)
            return warmup * 0.5 * (1.0 + math.cos(math.pi * progress))
        drops = sum(epoch >= drop for drop in self.drop_epochs)
        return warmup * float(self.drop_factor**drops)
