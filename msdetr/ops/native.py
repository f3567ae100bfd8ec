"""Building and loading of the native kernels.

A library is compiled on first use into a cache folder whose name is a hash of everything that
the result depends on: sources, torch, compiler, flags and processor. It is compiled aside under a
lock, flushed to disk and renamed when complete, so that concurrent processes wait for one builder
and an interrupted build leaves nothing that a later one could mistake for a library. Its digest
stands beside it: a library that was cut short later would end its process without a word.
"""

from __future__ import annotations

import ctypes
import fcntl
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Literal

import torch

from msdetr.errors import MsdetrError
from msdetr.files import SUMS_FILE, digest_file, line_of_sums, replace_text, replacing_file

DeviceType = Literal["cpu", "cuda"]

_OUTPUT_LINES = 20


class NativeBuildError(MsdetrError):
    """The native kernels cannot be built or loaded here; the message says why."""


@dataclass(frozen=True)
class BuildPlan:
    """How one library is compiled.

    Attributes:
        device_type: "cpu" or "cuda".
        source: The one translation unit.
        library: Where the finished library belongs.
        command: The compiler's command line without the output file.
        compiler: First line of the compiler's version text.
        target: Processor or GPU architectures the code is for.
    """

    device_type: DeviceType
    source: Path
    library: Path
    command: tuple[str, ...]
    compiler: str
    target: str

    @property
    def sums_file(self) -> Path:
        """Where the library's digest stands, as ``sha256sum -c`` reads it."""
        return self.library.with_name(SUMS_FILE)

    @property
    def is_built(self) -> bool:
        """Whether the library is there, byte for byte as it was compiled."""
        try:
            listed = self.sums_file.read_bytes()
            return listed == line_of_sums(digest_file(self.library), self.library.name)
        except OSError:
            return False


def cache_directory() -> Path:
    """Return the folder of built libraries: ``MSDETR_CACHE``, else the user's cache folder."""
    named = os.environ.get("MSDETR_CACHE")
    if named:
        return Path(named)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "msdetr"


def plan_build(
    device_type: DeviceType, *, strict: bool = False, architectures: tuple[str, ...] = ()
) -> BuildPlan:
    """Find the compiler and the place for a library.

    Args:
        device_type: "cpu" or "cuda".
        strict: Whether warnings in our files are errors, as in continuous integration.
        architectures: GPU architectures such as "90"; by default those of the visible GPUs.

    Raises:
        NativeBuildError: No compiler, no CUDA toolkit or no GPU to compile for.
    """
    folder = _source_folder()
    if device_type == "cpu":
        source, target = folder / "cpu.cpp", _processor()
        command = (*_host_command(strict), "-c")
    else:
        source, target = folder / "cuda.cu", ",".join(architectures or _visible_architectures())
        command = _cuda_command(target.split(","), strict)
    compiler = version_of(command[0])
    key = _digest(_source_digest(source), torch.__version__, compiler, *command, target)
    library = cache_directory() / f"{device_type}-{key}" / f"ms_deform_attn_{device_type}.so"
    return BuildPlan(device_type, source, library, command, compiler, target)


def build(
    device_type: DeviceType = "cpu",
    *,
    force: bool = False,
    strict: bool = False,
    architectures: tuple[str, ...] = (),
) -> Path:
    """Compile a library unless the cache has it, whole.

    Args:
        device_type: "cpu" or "cuda".
        force: Whether to compile even when the cache has it.
        strict: Whether warnings in our files are errors.
        architectures: GPU architectures such as "90"; by default those of the visible GPUs.

    Returns:
        The library's path.

    Raises:
        NativeBuildError: There is no compiler, or it failed; the message ends with its output.
    """
    plan = plan_build(device_type, strict=strict, architectures=architectures)
    if plan.is_built and not force:
        return plan.library
    try:
        plan.library.parent.mkdir(parents=True, exist_ok=True)
        with _locked(plan.library.parent / "lock"):
            if force or not plan.is_built:
                _compile(plan)
    except OSError as error:
        raise NativeBuildError(f"cannot build in {plan.library.parent}: {error}") from error
    return plan.library


@functools.cache
def load(device_type: DeviceType) -> Path:
    """Build if needed and register the kernels of a device type, once per process.

    Raises:
        NativeBuildError: They cannot be built or loaded.
    """
    library = build(device_type)
    try:
        ctypes.CDLL(str(library))
    except OSError as error:
        message = f"cannot load {library}: {error}; `msdetr doctor --build` compiles it again"
        raise NativeBuildError(message) from error
    return library


def _compile(plan: BuildPlan) -> None:
    aside = plan.library.parent / "building"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    sys.stderr.write(f"msdetr: compiling the {plan.device_type} kernels (once) ...")
    sys.stderr.flush()
    started = time.monotonic()
    compiled = aside / "kernels.o"
    linked = aside / plan.library.name
    try:
        _run([*plan.command, str(plan.source), "-o", str(compiled)])
        _run(_link_command(plan, compiled, linked))
    except NativeBuildError:
        sys.stderr.write(" failed\n")
        raise
    with replacing_file(plan.library) as whole:
        linked.replace(whole)
    digest = line_of_sums(digest_file(plan.library), plan.library.name)
    replace_text(plan.sums_file, digest.decode())
    shutil.rmtree(aside, ignore_errors=True)
    sys.stderr.write(f" done in {time.monotonic() - started:.0f} s\n")


def _run(command: list[str]) -> None:
    try:
        subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    except subprocess.CalledProcessError as error:
        output = error.output.decode(errors="replace").strip().splitlines()
        tail = "\n".join(output[-_OUTPUT_LINES:])
        raise NativeBuildError(f"{command[0]} failed (exit {error.returncode}):\n{tail}") from error


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock that the system releases when the process ends, however it ends."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.stderr.write("msdetr: waiting for another process that compiles the kernels\n")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _source_folder() -> Path:
    # Wheels are installed unpacked, so the resource is a real folder.
    return Path(str(resources.files("msdetr.extensions.ms_deform_attn")))


def _torch_folder() -> Path:
    return Path(torch.__file__).parent


def _host_command(strict: bool) -> tuple[str, ...]:
    return (
        find_compiler(),
        *("-std=c++20", "-O3", "-fPIC", "-fvisibility=hidden", "-fopenmp", *_processor_flags()),
        # Neither changes a result: errno and floating-point traps are what the loops cannot keep.
        *("-fno-math-errno", "-fno-trapping-math"),
        *(("-Wall", "-Wextra", "-Werror") if strict else ()),
        *_include_flags(),
    )


def _processor_flags() -> tuple[str, ...]:
    if platform.machine() in {"x86_64", "AMD64"}:
        return ("-march=native", "-mprefer-vector-width=512")
    return ("-mcpu=native",)


def _include_flags() -> tuple[str, ...]:
    include = _torch_folder() / "include"
    return ("-isystem", str(include), "-isystem", str(include / "torch/csrc/api/include"))


def _cuda_command(architectures: list[str], strict: bool) -> tuple[str, ...]:
    return (
        find_nvcc(),
        *("-std=c++20", "-O3", "-Xcompiler=-fPIC,-fvisibility=hidden", "--threads=0", "-c"),
        *(f"-gencode=arch=compute_{name},code=sm_{name}" for name in architectures),
        *(("-Xcompiler=-Wall,-Wextra,-Werror", "-Werror=all-warnings") if strict else ()),
        *_include_flags(),
    )


def _link_command(plan: BuildPlan, compiled: Path, linked: Path) -> list[str]:
    libraries = ["torch_cpu", "c10"]
    if plan.device_type == "cuda":
        libraries += ["torch_cuda", "c10_cuda"]
    # OpenMP comes from torch's own dependencies: linking another copy would give two thread pools.
    return [
        *(find_compiler(), "-shared", str(compiled), "-o", str(linked)),
        f"-L{_torch_folder() / 'lib'}",
        *(f"-l{name}" for name in libraries),
    ]


def find_compiler() -> str:
    """Return the C++ compiler: ``CXX``, else the first on the path.

    Raises:
        NativeBuildError: There is none.
    """
    names = [os.environ["CXX"]] if os.environ.get("CXX") else ["g++", "clang++", "c++"]
    for name in names:
        found = shutil.which(name)
        if found:
            return found
    raise NativeBuildError(f"no C++ compiler ({', '.join(names)}) on PATH; install g++ or set CXX")


def find_nvcc() -> str:
    """Return the CUDA compiler: of ``CUDA_HOME``, of its usual place, or on the path.

    Raises:
        NativeBuildError: There is none, or torch has no CUDA support.
    """
    if torch.version.cuda is None:
        raise NativeBuildError("this torch has no CUDA support; install one that has")
    home = os.environ.get("CUDA_HOME") or "/usr/local/cuda"
    for candidate in (f"{home}/bin/nvcc", "nvcc"):
        found = shutil.which(candidate)
        if found:
            return found
    raise NativeBuildError("no nvcc on PATH or in CUDA_HOME; install the CUDA toolkit")


def _visible_architectures() -> tuple[str, ...]:
    if not torch.cuda.is_available():
        raise NativeBuildError("no CUDA device is visible")
    capabilities = map(torch.cuda.get_device_capability, range(torch.cuda.device_count()))
    return tuple(sorted({f"{major}{minor}" for major, minor in capabilities}))


@functools.cache
def version_of(compiler: str) -> str:
    """Return the line of a compiler's version text that tells its release."""
    output = subprocess.run([compiler, "--version"], check=False, capture_output=True).stdout
    # nvcc names its release on the last lines, the others on the first.
    lines = output.decode(errors="replace").strip().splitlines() or ["unknown"]
    return lines[-1] if "nvcc" in compiler else lines[0]


def _processor() -> str:
    """Return a short name of this processor's instruction sets: native code may fail on others."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return f"{torch.backends.cpu.get_cpu_capability()}-{_digest(platform.machine(), flags)[:8]}"


def _source_digest(source: Path) -> str:
    headers = {".h", ".cuh"} if source.suffix == ".cu" else {".h"}
    files = sorted(path for path in source.parent.iterdir() if path.suffix in headers)
    return _digest(*(f"{path.name}\n{path.read_text()}" for path in (source, *files)))


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
