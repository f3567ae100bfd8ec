"""Statistics of batch norm, which must not depend on how a step is divided."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from msdetr.engine.processes import Processes


class RunningStatistics:
    """Moves the running statistics once per step, by the mean over its micro-batches.

    Every micro-batch moves them from where the step began. Their mean over all micro-batches and
    processes becomes theirs only when the step is finished, so that a discarded step leaves no
    trace, and any number of processes comes to the same.

    Args:
        model: Model whose batch norms in training mode are looked after; it may have none.
        processes: To share the statistics.
    """

    def __init__(self, model: nn.Module, processes: Processes) -> None:
        self._norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
        self._processes = processes
        self._buffers: list[Tensor] = []
        self._start: list[Tensor] = []
        self._sums: list[Tensor] = []

    def begin_step(self) -> None:
        """Remember where the step begins."""
        self._buffers = [
            buffer for norm in self._norms if norm.training for buffer in norm.buffers()
        ]
        self._start = [buffer.clone() for buffer in self._buffers]
        self._sums = [torch.zeros_like(buffer) for buffer in self._buffers]

    def take_micro_batch(self) -> None:
        """Add up what a micro-batch made of the statistics, and return to the step's beginning."""
        for total, buffer in zip(self._sums, self._buffers, strict=True):
            total.add_(buffer)
        self.restore()

    def restore(self) -> None:
        """Return to the step's beginning."""
        for buffer, start in zip(self._buffers, self._start, strict=True):
            buffer.copy_(start)

    def share(self, num_micro_batches: int) -> None:
        """Average over the micro-batches of all processes, which must all call this.

        Args:
            num_micro_batches: Of the step, over all processes.
        """
        if self._sums:
            flat = torch.cat([total.double().flatten() for total in self._sums])
            mean = self._processes.add(flat) / num_micro_batches
            parts = torch.split(mean, [total.numel() for total in self._sums])
            self._sums = [
                part.reshape(total.shape) for part, total in zip(parts, self._sums, strict=True)
            ]

    def finish_step(self) -> None:
        """Take over the shared averages."""
        for buffer, mean in zip(self._buffers, self._sums, strict=True):
            buffer.copy_(mean)
