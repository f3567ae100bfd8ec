"""State of the backends of multi-scale deformable attention on this machine."""

from __future__ import annotations

from dataclasses import dataclass

from msdetr.ops import native


@dataclass(frozen=True)
class BackendStatus:
    """One native backend as found on this machine.

    Attributes:
        device_type: "cpu" or "cuda".
        built: Whether the cache holds its library.
        library: Where the library is or would be; empty when it cannot be built.
        compiler: First line of the compiler's version text; empty when there is none.
        target: Processor or GPU architectures the library is for; empty when unknown.
        problem: Why it cannot be built here; empty when it can.
    """

    device_type: str
    built: bool
    library: str
    compiler: str
    target: str
    problem: str


def backend_report() -> list[BackendStatus]:
    """Describe the native backends without building or loading any of them."""
    return [_status("cpu"), _status("cuda")]


def compiler_versions() -> dict[str, str]:
    """Return a line on the C++ compiler and on nvcc, or why there is none."""
    versions = {}
    for name, find in {"c++": native.find_compiler, "nvcc": native.find_nvcc}.items():
        try:
            versions[name] = native.version_of(find())
        except native.NativeBuildError as error:
            versions[name] = f"none ({error})"
    return versions


def _status(device_type: native.DeviceType) -> BackendStatus:
    try:
        plan = native.plan_build(device_type)
    except native.NativeBuildError as error:
        return BackendStatus(
            device_type=device_type,
            built=False,
            library="",
            compiler="",
            target="",
            problem=str(error),
        )
    return BackendStatus(
        device_type=device_type,
        built=plan.is_built,
        library=str(plan.library),
        compiler=plan.compiler,
        target=plan.target,
        problem="",
    )
