"""What the name of a device means on this machine, and how many cores there are."""

from __future__ import annotations

import os

import torch

from msdetr.errors import UsageError


def resolve_device(name: str) -> torch.device:
    """Find the device of a name.

    Args:
        name: "auto" (a GPU where there is one), "cpu", "cuda" or "cuda:N".

    Returns:
        The device; without an index, "cuda" means the current one.

    Raises:
        UsageError: It is another name, or torch does not see the device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.device_count() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise _unknown(name) from error
    if device.type not in ("cpu", "cuda"):
        raise _unknown(name)
    available = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= available:
        raise UsageError(
            "`device`", f"{name!r} is not available: torch sees {available} CUDA devices"
        )
    return device


def count_cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0))


def _unknown(name: str) -> UsageError:
    return UsageError("`device`", f"expected auto, cpu, cuda or cuda:N, got {name!r}")
