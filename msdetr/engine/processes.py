"""The accelerator, and what the processes of a run tell each other over host memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import reduce
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, is_initialized
from accelerate.utils import InitProcessGroupKwargs, is_tensorboard_available
from torch import Tensor, distributed, nn
from torch.futures import Future
from torch.nn.parallel import DistributedDataParallel

from msdetr.engine.device import resolve_device
from msdetr.errors import FaultElsewhereError, UsageError

T = TypeVar("T")
Precision = Literal["fp32", "bf16", "fp16"]

# Long enough for the other processes to wait for rank 0's evaluation or for a build.
WAIT_LIMIT = timedelta(hours=6)


def create_accelerator(
    *,
    device: str = "auto",
    precision: Precision = "fp32",
    tracking_dir: Path | None = None,
) -> Accelerator:
    """Set up device, precision, processes and trackers.

    The number of processes comes from the environment (``msdetr.engine.launcher``, torchrun,
    ``accelerate launch``, SLURM).

    Args:
        device: "auto", "cpu", "cuda" or "cuda:N".
        precision: Of the model's forward; weights stay in fp32.
        tracking_dir: Where TensorBoard's files go, if it is installed; None for no tracker.

    Raises:
        UsageError: The device or its precision is not available.
    """
    wanted = resolve_device(device)
    on_cpu = wanted.type == "cpu"
    if precision == "fp16" and on_cpu:
        raise UsageError("precision", "fp16 needs a GPU; set train.precision to fp32 or bf16")
    if wanted.index is not None:
        # Accelerate has no argument for it: it takes the current device.
        torch.cuda.set_device(wanted)
    mixed_precision = "no" if precision == "fp32" else precision
    _forget_other_settings(mixed_precision, on_cpu=on_cpu)
    tracked = tracking_dir is not None and is_tensorboard_available()
    accelerator = Accelerator(
        cpu=on_cpu,
        mixed_precision=mixed_precision,
        log_with="tensorboard" if tracked else None,
        project_dir=tracking_dir,
        kwargs_handlers=[InitProcessGroupKwargs(timeout=WAIT_LIMIT)],
    )
    # The loop accumulates by itself; a launcher's environment must not divide the loss again.
    accelerator.gradient_accumulation_steps = 1
    return accelerator


class OtherProcessError(FaultElsewhereError):
    """Another process of the run failed."""


class Processes:
    """What the processes agree on, without waiting for a GPU.

    Args:
        accelerator: Where the processes were set up.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self._accelerator = accelerator
        self.rank: int = accelerator.process_index
        self.num_processes: int = accelerator.num_processes
        self._group: distributed.ProcessGroup | None = None
        if self.num_processes > 1:
            group = distributed.new_group(backend="gloo", timeout=WAIT_LIMIT)
            self._group = cast("distributed.ProcessGroup", group)

    @property
    def is_main(self) -> bool:
        """Whether this process writes the run's files."""
        return self.rank == 0

    def sum(self, values: Sequence[float]) -> list[float]:
        """Add the values of all processes, position by position."""
        if self._group is None:
            return [float(value) for value in values]
        totals = torch.tensor(values, dtype=torch.float64)
        distributed.all_reduce(totals, group=self._group)
        return cast("list[float]", totals.tolist())

    def add(self, values: Tensor) -> Tensor:
        """Add a tensor of every process, element by element, on its device."""
        if self._group is None:
            return values
        return cast("Tensor", self._accelerator.reduce(values, reduction="sum"))

    def fix_order_of_gradients(self, model: nn.Module) -> None:
        """Let the gradient of a step on CPUs depend on the processes' shares alone, to the bit.

        DistributedDataParallel sums large pieces, cut anew after the first step of a process,
        and gloo's order of summation depends on the place within a piece: a resumed run would
        differ from an undisturbed one in the last bit. Here every element is summed by rank.

        Args:
            model: As prepared by the accelerator.
        """
        on_cpus = self._accelerator.device.type == "cpu"
        if on_cpus and isinstance(model, DistributedDataParallel):
            # It looks at annotations, which a lambda has none of.
            model.register_comm_hook(None, lambda _, bucket: self._average(bucket.buffer()))

    def _average(self, share: Tensor) -> Future[Tensor]:
        shares = [torch.empty_like(share) for _ in range(self.num_processes)]
        distributed.all_gather(shares, share)
        averaged: Future[Tensor] = Future()
        averaged.set_result(reduce(torch.add, shares).div_(self.num_processes))
        return averaged

    def together(self, work: Callable[[], T]) -> T:
        """Do work that may fail on one process; then all of them fail.

        Raises:
            OtherProcessError: It failed on another process, which the message names.
        """
        if self._group is None:
            return work()
        failure: Exception | None = None
        try:
            result = work()
        except Exception as error:
            failure = error
        if not self.sum([failure is not None])[0]:
            return result
        messages = self.gather(None if failure is None else str(failure))
        if failure is not None:
            raise failure
        rank, message = next((r, text) for r, text in enumerate(messages) if text is not None)
        raise OtherProcessError(f"process {rank} of {self.num_processes} failed: {message}")

    def wait(self) -> None:
        """Wait until every process has come here."""
        self.sum([0.0])

    def gather(self, value: T) -> list[T]:
        """Collect a value of every process, by rank."""
        if self._group is None:
            return [value]
        gathered: list[Any] = [None] * self.num_processes
        distributed.all_gather_object(gathered, value, group=self._group)
        return gathered

    def broadcast(self, value: T) -> T:
        """Give every process the main process's value."""
        if self._group is None:
            return value
        box: list[Any] = [value]
        distributed.broadcast_object_list(box, src=0, group=self._group)
        return cast("T", box[0])


def _forget_other_settings(mixed_precision: str, *, on_cpu: bool) -> None:
    # Accelerate keeps one state per Python process and refuses other settings afterwards.
    if not is_initialized():
        return
    state = AcceleratorState()
    if state.mixed_precision != mixed_precision or (state.device.type == "cpu") != on_cpu:
        AcceleratorState._reset_state(reset_partial_state=True)
