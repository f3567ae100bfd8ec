"""Forward and backward of every backend against float64, on the machine at hand."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from msdetr.ops import native
from msdetr.ops.dispatch import ms_deform_attn

_SHAPES = ((9, 12), (5, 6), (3, 3), (1, 2))
_IMAGES, _HEADS, _CHANNELS, _POINTS = 2, 4, 32, 4
# Few queries gather from the values where they are; many have them packed first.
_QUERIES = (3, 150)
# Largest difference that rounding explains, relative to the largest value.
_TOLERANCES = {
    torch.float64: 1e-12,
    torch.float32: 1e-5,
    torch.bfloat16: 1e-2,
    torch.float16: 2e-3,
}
_DTYPES = {
    "cpu": (torch.float32, torch.float64, torch.bfloat16),
    "cuda": (torch.float32, torch.float64, torch.bfloat16, torch.float16),
}


@dataclass(frozen=True)
class SelfTest:
    """How one backend computes on one device, measured against float64 on the CPU.

    Attributes:
        backend: "native", "reference" or "gather".
        device: "cpu" or "cuda:N".
        dtype: Of the values, such as "float32"; empty where the backend cannot be used.
        forward: Largest difference of the output, relative to its largest value; NaN where
            nothing was computed.
        backward: Likewise, of the three gradients.
        tolerance: Largest difference that rounding explains.
        usable: Whether the backend can be used here at all.
        problem: Why it cannot be used, or what failed; empty otherwise.
    """

    backend: str
    device: str
    dtype: str = ""
    forward: float = math.nan
    backward: float = math.nan
    tolerance: float = math.nan
    usable: bool = True
    problem: str = ""

    @property
    def passed(self) -> bool:
        """Whether rounding explains the differences; true where there is nothing to test."""
        if not self.usable:
            return True
        # NaN, as the result of a broken kernel, compares as false.
        return not self.problem and all(d <= self.tolerance for d in (self.forward, self.backward))


@dataclass(frozen=True)
class _Case:
    value: Tensor
    locations: Tensor
    weights: Tensor
    direction: Tensor

    def to(self, device: str, dtype: torch.dtype) -> _Case:
        precise = torch.float64 if dtype == torch.float64 else torch.float32
        return _Case(
            self.value.to(device, dtype),
            self.locations.to(device, precise),
            self.weights.to(device, precise),
            self.direction.to(device, dtype),
        )


def run_self_test() -> Iterator[SelfTest]:
    """Test every backend on the CPU and on every GPU; the native ones are built if need be.

    Yields:
        One result per backend, device and dtype; a single one for a native backend that cannot
        be used.
    """
    yield from _test_device("cpu", "cpu")
    for index in range(torch.cuda.device_count()):
        yield from _test_device(f"cuda:{index}", "cuda")


def _test_device(device: str, kind: native.DeviceType) -> Iterator[SelfTest]:
    problem = _native_problem(device, kind)
    if problem is not None:
        yield problem
    for backend in ("native", "reference", "gather"):
        if backend != "native" or problem is None:
            yield from (_test(backend, device, dtype) for dtype in _DTYPES[kind])


def _native_problem(device: str, kind: native.DeviceType) -> SelfTest | None:
    """Say why native kernels cannot be used; a compiler that fails is a failed test."""
    result = SelfTest("native", device)
    try:
        native.plan_build(kind)
    except native.NativeBuildError as error:
        return replace(result, usable=False, problem=str(error))
    try:
        native.load(kind)
    except native.NativeBuildError as error:
        return replace(result, problem=str(error))
    return None


def _test(backend: str, device: str, dtype: torch.dtype) -> SelfTest:
    name = str(dtype).removeprefix("torch.")
    result = SelfTest(backend, device, name, tolerance=_TOLERANCES[dtype])
    try:
        pairs = [_differences(backend, device, dtype, queries) for queries in _QUERIES]
    except RuntimeError as error:  # what torch raises for kernels and devices that fail
        return replace(result, problem=str(error).strip().partition("\n")[0])
    forward, backward = (_largest(each) for each in zip(*pairs, strict=True))
    return replace(result, forward=forward, backward=backward)


def _differences(
    backend: str, device: str, dtype: torch.dtype, queries: int
) -> tuple[float, float]:
    # Rounding the inputs is not the backend's error, so the oracle sees them rounded.
    case = _draw(queries).to(device, dtype)
    actual = _output_and_gradients(case, backend)
    expected = _output_and_gradients(case.to("cpu", torch.float64), "reference")
    forward, *backward = (
        ((a.cpu().double() - e).abs().max() / e.abs().max()).item()
        for a, e in zip(actual, expected, strict=True)
    )
    return forward, _largest(backward)


def _output_and_gradients(case: _Case, backend: str) -> tuple[Tensor, ...]:
    leaves = [t.detach().requires_grad_() for t in (case.value, case.locations, case.weights)]
    output = ms_deform_attn(leaves[0], _SHAPES, leaves[1], leaves[2], backend=backend)
    return output.detach(), *torch.autograd.grad(output, leaves, case.direction)


def _draw(queries: int) -> _Case:
    """Draw inputs; about a quarter of the samples lies outside the maps."""
    generator = torch.Generator().manual_seed(queries)
    samples = (_IMAGES, queries, _HEADS, len(_SHAPES), _POINTS)

    def draw(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, dtype=torch.float64)

    # Between two cells the gradient jumps, and rounding decides on which side a sample lies:
    # samples keep away from there.
    sizes = torch.tensor([(width, height) for height, width in _SHAPES], dtype=torch.float64)
    cells = (draw(*samples, 2) * (sizes[:, None] + 2)).floor() - 1
    positions = cells + 0.1 + 0.8 * draw(*samples, 2)
    return _Case(
        value=draw(_IMAGES, sum(h * w for h, w in _SHAPES), _HEADS, _CHANNELS) - 0.5,
        locations=(positions + 0.5) / sizes[:, None],
        weights=draw(*samples),
        direction=draw(_IMAGES, queries, _HEADS * _CHANNELS) - 0.5,
    )


def _largest(differences: Sequence[float]) -> float:
    """Return the largest, or NaN if one is NaN: Python's max would lose it."""
    return math.nan if any(map(math.isnan, differences)) else max(differences)
