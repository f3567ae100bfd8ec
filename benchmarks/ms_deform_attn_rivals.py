"""What ``ms_deform_attn.py`` compares: this package's backends, and others where installed."""

from __future__ import annotations

import functools
import importlib
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from msdetr.ops import ms_deform_attn
from msdetr.ops.native import find_nvcc

Shapes = Sequence[tuple[int, int]]
Attention = Callable[[Tensor, Shapes, Tensor, Tensor], Tensor]

_NAIVE_SOURCE = Path(__file__).with_name("naive_ms_deform_attn.cu")


def find_backends(
    device: str, talk: Callable[[str], None] = lambda _: None
) -> dict[str, Attention]:
    """Return the backends and rivals that run on a device, ``native`` first.

    Args:
        device: "cpu" or "cuda".
        talk: Receives one line per rival that is absent.
    """
    found: dict[str, Attention] = {
        name: functools.partial(ms_deform_attn, backend=name)
        for name in ("native", "reference", "gather")
    }
    rival = _installed_rival(device)
    if rival is None:
        talk("rival absent: torch-ms-deform-attn is not installed")
    else:
        found["rival"] = rival
    if device == "cuda":
        found["naive"] = _naive_kernel()
    return found


def _installed_rival(device: str) -> Attention | None:
    try:
        module = importlib.import_module("torch_ms_deform_attn")
    except ImportError:
        return None

    @functools.cache
    def metadata(shapes: tuple[tuple[int, int], ...]) -> tuple[Tensor, Tensor]:
        sizes = torch.tensor(shapes, device=device)
        cells = sizes.prod(1)
        return sizes, cells.cumsum(0) - cells

    def attention(value: Tensor, shapes: Shapes, locations: Tensor, weights: Tensor) -> Tensor:
        # It expects one dtype for all of its inputs, and coordinates need float32.
        sizes, starts = metadata(tuple(shapes))
        output: Tensor = module.ms_deform_attn(value.float(), sizes, starts, locations, weights)
        return output.to(value.dtype)

    return attention


def build_naive_kernel(library: Path, architecture: str) -> None:
    """Compile the plain kernel by nvcc itself: torch's own builder would need ninja."""
    torch_folder = Path(torch.__file__).parent
    include = torch_folder / "include"
    # The CUDA runtime comes from torch's own dependencies, as for the package's kernels.
    command = [
        *(find_nvcc(), "-std=c++20", "-O3", "-shared", "-Xcompiler=-fPIC", "--cudart=none"),
        *(f"-arch=sm_{architecture}", str(_NAIVE_SOURCE), "-o", str(library)),
        *("-isystem", str(include), "-isystem", str(include / "torch/csrc/api/include")),
        f"-L{torch_folder / 'lib'}",
        *(f"-l{name}" for name in ("torch_cpu", "c10", "torch_cuda", "c10_cuda")),
    ]
    subprocess.run(command, check=True)


def _naive_kernel() -> Attention:
    major, minor = torch.cuda.get_device_capability()
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "naive.so"
        build_naive_kernel(library, f"{major}{minor}")
        torch.ops.load_library(library)  # type: ignore[no-untyped-call]
    operators = torch.ops.msdetr_naive

    class Naive(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *inputs: Any) -> Tensor:  # noqa: ANN401
            value, sizes, locations, weights = inputs
            ctx.save_for_backward(value, locations, weights)
            ctx.sizes = sizes
            output: Tensor = operators.forward(value, sizes, locations, weights)
            return output

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
            value, locations, weights = ctx.saved_tensors
            grads = operators.backward(grad.contiguous(), value, ctx.sizes, locations, weights)
            return grads[0], None, grads[1], grads[2]

    def attention(value: Tensor, shapes: Shapes, locations: Tensor, weights: Tensor) -> Tensor:
        # Float32 only, as usual for such kernels: other dtypes are converted and back.
        sizes = [size for shape in shapes for size in shape]
        output: Tensor = Naive.apply(value.float(), sizes, locations, weights)
        return output.to(value.dtype)

    return attention
