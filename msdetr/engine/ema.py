"""Exponential moving average of a model's weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn

from msdetr.engine.weights import find_mismatches, unique_state


class WeightAverage:
    """Keeps ``average = decay * average + (1 - decay) * weights`` of a model's state.

    Floating parameters and buffers are averaged; other buffers are copied.

    Args:
        model: Model to follow; the average starts at its present weights.
        decay: Share of the old average kept at each update, in (0, 1).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        if not 0.0 < decay < 1.0:
            raise ValueError(f"decay must be in (0, 1), got {decay}")
        self.decay = decay
        self._model = model
        self._average = {name: value.clone() for name, value in unique_state(model).items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take in the model's present weights."""
        for name, value in unique_state(self._model).items():
            average = self._average[name]
            if value.is_floating_point():
                average.lerp_(value, 1.0 - self.decay)
            else:
                average.copy_(value)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Put the average into the model for the duration of a ``with`` block."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def state_dict(self) -> dict[str, Tensor]:
        """Return the averaged weights under the model's names (tensors are not copied)."""
        return dict(self._average)

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Replace the average.

        Raises:
            ValueError: Names or shapes are not those of ``state_dict``.
        """
        problems = find_mismatches(self._average, state)
        if problems:
            raise ValueError("; ".join(problem.message for problem in problems))
        for name, average in self._average.items():
            average.copy_(state[name])

    def to(self, device: torch.device) -> None:
        """Move the average to the device of the model."""
        self._average = {name: value.to(device) for name, value in self._average.items()}

    @torch.no_grad()
    def _exchange(self) -> None:
        for name, value in unique_state(self._model).items():
            kept = value.clone()
            value.copy_(self._average[name])
            self._average[name].copy_(kept)


@contextmanager
def evaluation_weights(model: nn.Module, average: WeightAverage | None) -> Iterator[None]:
    """Put a model in training into evaluation mode, with averaged weights where they are kept."""
    model.eval()
    try:
        with average.applied() if average is not None else nullcontext():
            yield
    finally:
        model.train()
