"""State of an installation, and whether its results are correct: what ``msdetr doctor`` does."""

from __future__ import annotations

import contextlib
import math
import os
import platform
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from msdetr.ops import (
    BackendStatus,
    SelfTest,
    backend_report,
    build,
    cache_directory,
    compiler_versions,
    run_self_test,
)
from msdetr.ops.native import DeviceType
from msdetr.terminal import LiteralConsole

_PACKAGES = (
    *("msdetr", "torch", "torchvision", "accelerate", "pycocotools", "hotcoco"),
    *("numpy", "scipy", "pillow", "safetensors", "pydantic", "typer"),
)
_DEVICE_TYPES: tuple[DeviceType, ...] = ("cpu", "cuda")


@dataclass(frozen=True)
class CachePlace:
    """A place where files are kept between runs.

    Attributes:
        holds: What it is for.
        path: Where it is.
        exists: Whether anything is there yet.
    """

    holds: str
    path: str
    exists: bool


@dataclass(frozen=True)
class Diagnosis:
    """What an installation consists of and how its operator computes.

    Attributes:
        versions: Of Python, packages, CUDA and compilers, by name.
        machine: Operating system, processor, memory and GPUs, by name.
        backends: Native backends of deformable attention, one per type of device.
        caches: Where files are kept.
        self_tests: Every backend's forward and backward against float64.
    """

    versions: Mapping[str, str]
    machine: Mapping[str, str]
    backends: Sequence[BackendStatus]
    caches: Sequence[CachePlace]
    self_tests: Sequence[SelfTest]

    @property
    def passed(self) -> bool:
        """Whether the results of every backend that can be used are correct."""
        return all(test.passed for test in self.self_tests)

    def auto_backend(self, device_type: str) -> str | None:
        """Return the backend that "auto" means on a type of device; None without a device."""
        tested = [test.backend for test in self._tests_on(device_type) if test.dtype]
        if not tested:
            return None
        return "native" if "native" in tested else "reference"

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON values; the home folder is written ``~``, no number is null."""
        content = {
            "passed": self.passed,
            "versions": dict(self.versions),
            "machine": dict(self.machine),
            "backends": [
                {**asdict(status), "auto": self.auto_backend(status.device_type)}
                for status in self.backends
            ],
            "caches": [asdict(place) for place in self.caches],
            "self_test": [{**asdict(test), "passed": test.passed} for test in self.self_tests],
        }
        return {key: _presentable(value) for key, value in content.items()}

    def lines(self) -> list[str]:
        """Return a block of text for a bug report; the home folder is written ``~``."""
        verdict = "passed" if self.passed else "FAILED"
        sections = {
            "versions": _columns([[*item] for item in self.versions.items()]),
            "machine": _columns([[*item] for item in self.machine.items()]),
            "deformable attention": _columns([*map(self._backend_row, self.backends)]),
            "caches": _columns([_cache_row(place) for place in self.caches]),
            "self-test: largest difference from float64, relative to the largest value": _columns(
                [
                    ["backend", "device", "dtype", "forward", "backward", "allowed", ""],
                    *map(_test_row, self.self_tests),
                ]
            ),
        }
        body = [line for title, rows in sections.items() for line in (title, *rows)]
        return [_without_home(line) for line in (*body, f"self-test {verdict}")]

    def _backend_row(self, status: BackendStatus) -> list[str]:
        auto = self.auto_backend(status.device_type)
        means = "no device" if auto is None else f"auto is {auto}"
        if auto == "native":
            return [status.device_type, means, f"built by {status.compiler} for {status.target}"]
        problems = (test.problem for test in self._tests_on(status.device_type) if test.problem)
        reason = status.problem or next(problems, "")
        return [status.device_type, means, f"no native kernels: {_first_line(reason)}"]

    def _tests_on(self, device_type: str) -> list[SelfTest]:
        return [test for test in self.self_tests if test.device.startswith(device_type)]


def diagnose() -> Diagnosis:
    """Collect versions, devices and caches, and test every backend of deformable attention.

    Native kernels are built if need be, as a training run would.
    """
    tests = list(run_self_test())
    backends = backend_report()
    return Diagnosis(
        versions=_versions(),
        machine=_machine(),
        backends=backends,
        caches=_caches(backends),
        self_tests=tests,
    )


def rebuild() -> None:
    """Recompile the native kernels, for the CPU and for the GPUs there are.

    Raises:
        NativeBuildError: They cannot be built for the CPU, or the compiler failed.
    """
    console = LiteralConsole(stderr=True)
    problems = {status.device_type: status.problem for status in backend_report()}
    for device_type in _DEVICE_TYPES:
        if device_type == "cuda" and problems["cuda"]:
            console.say(f"not built for cuda: {problems['cuda']}")
            continue
        started = time.monotonic()
        library = _without_home(str(build(device_type, force=True)))
        taken = f"built for {device_type} in {time.monotonic() - started:.1f} s: {library}"
        console.say(taken)


def _versions() -> dict[str, str]:
    return {
        "python": f"{platform.python_version()} ({platform.python_implementation()})",
        **{name: _package_version(name) for name in _PACKAGES},
        "cuda of torch": torch.version.cuda or "none",
        **compiler_versions(),
    }


def _package_version(name: str) -> str:
    if name == "torch":
        return str(torch.__version__)  # with the build, such as +cpu
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def _machine() -> dict[str, str]:
    threads = f"{os.cpu_count()} cores, {torch.get_num_threads()} threads of torch"
    gpus = [_describe_gpu(index) for index in range(torch.cuda.device_count())]
    return {
        "os": ", ".join(_operating_system()),
        "cpu": f"{_processor_name()}, {torch.backends.cpu.get_cpu_capability()}, {threads}",
        "memory": f"{_memory_gib():.1f} GiB",
        "gpu": "; ".join(gpus) or "none",
    }


def _operating_system() -> Iterator[str]:
    with contextlib.suppress(OSError, KeyError):
        yield platform.freedesktop_os_release()["PRETTY_NAME"]
    yield platform.platform()


def _processor_name() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:
        text = ""
    named = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return named[1] if named else platform.processor() or platform.machine()


def _memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def _describe_gpu(index: int) -> str:
    found = torch.cuda.get_device_properties(index)
    memory = found.total_memory / 2**30
    return f"cuda:{index} {found.name}, sm_{found.major}{found.minor}, {memory:.0f} GiB"


def _caches(backends: Sequence[BackendStatus]) -> list[CachePlace]:
    shapes = sorted(cache_directory().glob("shapes-v*"))
    weights = Path(torch.hub.get_dir()) / "checkpoints"
    return [
        *(
            CachePlace(f"kernels for {status.device_type}", status.library, status.built)
            for status in backends
            if status.library
        ),
        *(CachePlace("generated shapes", str(path), exists=True) for path in shapes),
        CachePlace("backbone weights", str(weights), weights.is_dir()),
    ]


def _cache_row(place: CachePlace) -> list[str]:
    return [place.holds, place.path if place.exists else f"{place.path} (not there yet)"]


def _test_row(test: SelfTest) -> list[str]:
    verdict = "ok" if test.passed else "FAILED"
    if not test.usable:
        verdict = "not usable"
    if test.problem:
        verdict = f"{verdict}: {_first_line(test.problem)}"
    numbers = [test.forward, test.backward, test.tolerance]
    shown = ["-" if math.isnan(number) else f"{number:.1e}" for number in numbers]
    return [test.backend, test.device, test.dtype or "-", *shown, verdict]


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  " + "  ".join(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]


def _without_home(text: str) -> str:
    try:
        home = str(Path.home())
    except RuntimeError:
        return text
    return text if home == "/" else re.sub(rf"{re.escape(home)}(?![\w.-])", "~", text)


def _presentable(value: Any) -> Any:  # noqa: ANN401 - JSON values
    if isinstance(value, dict):
        return {key: _presentable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_presentable(item) for item in value]
    if isinstance(value, float) and math.isnan(value):
        return None
    return _without_home(value) if isinstance(value, str) else value
