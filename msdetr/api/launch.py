"""Commands by several processes of this machine: what ``processes`` asks for."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch

from msdetr.engine.device import resolve_device
from msdetr.engine.launcher import launch
from msdetr.errors import UsageError

_SET_BY_LAUNCHERS = ("RANK", "WORLD_SIZE")


def launch_command(words: Sequence[str], *, processes: int) -> int:
    """Run a command line of msdetr by several processes of this machine, to their end.

    Args:
        words: What follows ``msdetr``.
        processes: How many; see ``count_processes``.

    Returns:
        The exit code, where there is nothing to say about it.

    Raises:
        MsdetrError: One of them failed, or was stopped by a signal.
    """
    return launch(["-m", "msdetr.cli", *words], processes)


def count_processes(processes: str, *, device: str) -> int:
    """Find how many processes are to be started.

    Args:
        processes: A number, or "auto": one per GPU, and one on the CPU, whose threads share the
            work on an image with less loss than processes that sum their gradients, where no
            other program takes their cores (docs/cluster.md).
        device: "auto", "cpu", "cuda" or "cuda:N".

    Raises:
        UsageError: It is no such number, there are too few GPUs, or a launcher has started this
            process.
    """
    number = parse_processes(processes)
    num_gpus = _count_gpus(device)
    if number is None:
        return num_gpus or 1
    if num_gpus and number > num_gpus:
        raise UsageError(
            "`processes`",
            f"{number} processes need a GPU each, and `device={device!r}` has {num_gpus}; "
            "`device='cpu'` uses cores instead",
        )
    return number


def parse_processes(processes: str) -> int | None:
    """Read how many processes are asked for; None for "auto".

    Raises:
        UsageError: It is neither, or a launcher has started this process.
    """
    found = [name for name in _SET_BY_LAUNCHERS if name in os.environ]
    if found:
        message = (
            f"a launcher has started this process already ({' and '.join(found)} set); leave out "
            "`processes`, or the launcher"
        )
        raise UsageError("`processes`", message)
    if processes == "auto":
        return None
    number = int(processes) if processes.isascii() and processes.isdigit() else 0
    if number < 1:
        raise UsageError(
            "`processes`", f"expected a whole number of at least 1 or auto, got {processes!r}"
        )
    return number


def _count_gpus(device: str) -> int:
    if resolve_device(device).type == "cpu":
        return 0
    return 1 if ":" in device else torch.cuda.device_count()
