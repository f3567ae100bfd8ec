"""What a run was made with: versions, machine, device."""

from __future__ import annotations

import os
import platform
import resource
import sys
from importlib import metadata
from pathlib import Path
from typing import Any, Self

import torch

# Linux only: writing 5 to the first resets the peak that the second tells.
_CLEAR_REFS = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")
_MEMINFO = Path("/proc/meminfo")
_CPUINFO = Path("/proc/cpuinfo")

PACKAGES = (
    *("msdetr", "torch", "torchvision", "accelerate"),
    *("numpy", "pycocotools", "hotcoco", "scipy"),
)


def collect_environment() -> dict[str, Any]:
    """Collect versions and machine as JSON values, for ``environment.json`` and bug reports."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
        "command": sys.argv,
        "cpu": _cpu_name(),
        # Kernels, and with them the last bits of sums, differ between these.
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cpus": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "cuda": torch.version.cuda,
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "processes": int(os.environ.get("WORLD_SIZE", "1")),
    }


def peak_memory_mib(device: torch.device) -> float:
    """Return the highest memory use so far in MiB: of the GPU's allocator, else of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def _cpu_name() -> str | None:
    if not _CPUINFO.exists():
        return platform.processor() or None
    lines = _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, None)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


class MemoryGauge:
    """Peak memory of what runs inside its ``with`` block.

    Of a GPU it is what its allocator gave out, else the resident memory of the process.

    Args:
        device: Where the work runs.

    Attributes:
        peak_mib: The peak in MiB, once the block is left.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.peak_mib = 0.0

    def __enter__(self) -> Self:
        """Forget earlier peaks."""
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        elif _CLEAR_REFS.exists():
            _CLEAR_REFS.write_text("5")
        return self

    def __exit__(self, *_: object) -> None:
        """Read the peak."""
        if self._device.type != "cuda" and _CLEAR_REFS.exists():
            self.peak_mib = _read_kib(_STATUS, "VmHWM") / 2**10
        else:
            self.peak_mib = peak_memory_mib(self._device)


def resident_memory_mib() -> float:
    """Return the memory in MiB that this process takes now, or has taken where nothing tells."""
    if not _STATUS.exists():
        return peak_memory_mib(torch.device("cpu"))
    return _read_kib(_STATUS, "VmRSS") / 2**10


def available_memory_mib(device: torch.device) -> float:
    """Return the memory in MiB that this process could use, what it has already taken included."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[1]) / 2**20
    if not _STATUS.exists():
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**20
    return (_read_kib(_MEMINFO, "MemAvailable") + _read_kib(_STATUS, "VmRSS")) / 2**10


def _read_kib(path: Path, key: str) -> int:
    line = next(line for line in path.read_text().splitlines() if line.startswith(f"{key}:"))
    return int(line.split()[1])
