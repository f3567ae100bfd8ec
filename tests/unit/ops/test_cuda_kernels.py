"""The CUDA kernels on an emulated GPU; ``tests/gpu`` runs them on a real one."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from msdetr.ops import ms_deform_attn

SOURCE = Path(__file__).with_name("cuda_emulation.cpp")

# (queries, channels, points, channels per lane, lanes); 41 queries are as many as cells
WIDTHS = {
    "vectors of four": (70, 32, 2, 4, 8),
    "queries are cells": (41, 32, 2, 4, 8),
    "few lanes": (5, 12, 2, 4, 4),
    "several rounds of channels": (5, 80, 2, 4, 8),
    "more points than one plan holds": (9, 16, 11, 4, 4),
    "single channels": (5, 7, 3, 1, 16),
    "single channels in rounds": (5, 35, 2, 1, 16),
}


class Arguments(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int64) for name in ("B", "S", "M", "D", "Q", "L", "P")),
        ("level_sizes", ctypes.c_void_p),
        ("bound", ctypes.c_double),
        *(
            (name, ctypes.c_void_p)
            for name in ("value", "locations", "attention", "grad_output", "output")
        ),
        *((name, ctypes.c_void_p) for name in ("grad_value", "grad_locations", "grad_attention")),
    )


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no g++")
    library = tmp_path_factory.mktemp("emulation") / "emulation.so"
    headers = str(resources.files("msdetr.extensions.ms_deform_attn"))
    command = [compiler, "-std=c++20", "-O1", "-shared", "-fPIC", f"-I{headers}"]
    subprocess.run([*command, str(SOURCE), "-o", str(library)], check=True)
    return ctypes.CDLL(str(library))


def emulate(
    emulator: ctypes.CDLL,
    inputs: Any,
    grad_output: Tensor,
    width: tuple[int, int],
    *,
    exact: bool,
    grad_value: Tensor | None = None,
) -> tuple[Tensor, ...]:
    value, locations, weights = inputs.tensors
    results = [
        torch.full_like(grad_output, torch.nan),
        torch.zeros_like(value) if grad_value is None else grad_value,
        torch.full_like(locations, torch.nan),
        torch.full_like(weights, torch.nan),
    ]
    bound = grad_output.abs().max() * weights.abs().max() * weights[0, ..., 0, 0, :].numel()
    level_sizes = torch.tensor(inputs.level_sizes)
    arguments = Arguments(
        *value.shape,
        *(locations.shape[axis] for axis in (1, 3, 4)),
        level_sizes.data_ptr(),
        bound.item() if exact else 0.0,
        *(tensor.data_ptr() for tensor in (value, locations, weights, grad_output, *results)),
    )
    entry = emulator.emulate_double if value.dtype == torch.float64 else emulator.emulate_float
    assert entry(*width, ctypes.byref(arguments)) == 0
    return tuple(results)


@pytest.mark.parametrize("exact", [False, True], ids=["atomics", "fixed point"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", WIDTHS)
def test_matches_the_reference(
    samples: Any, emulator: ctypes.CDLL, name: str, dtype: torch.dtype, exact: bool
) -> None:
    queries, channels, points, count, lanes = WIDTHS[name]
    if dtype == torch.float64 and count == 4:
        count = 2
    inputs = samples.make_inputs(queries=queries, channels=channels, points=points).to(dtype)
    leaves = [tensor.double().requires_grad_() for tensor in inputs.tensors]
    expected = ms_deform_attn(leaves[0], inputs.spatial_shapes, *leaves[1:], backend="reference")
    grad_output = (torch.rand(expected.shape, generator=torch.Generator().manual_seed(2)) - 0.5).to(
        dtype
    )
    gradients = torch.autograd.grad(expected, leaves, grad_output.double())
    actual = emulate(emulator, inputs, grad_output, (count, lanes), exact=exact)
    errors = samples.relative_errors(actual, (expected.detach(), *gradients))
    assert max(errors) < (1e-13 if dtype == torch.float64 else 2e-6)


def test_values_beyond_32_bit_indices(samples: Any, emulator: ctypes.CDLL) -> None:
    far, near = samples.make_far_inputs()
    assert far.value.numel() > 2**31
    # Values and their gradient take memory only where they are not zero.
    grad_value = samples.empty_memory(*far.value.shape)
    generator = torch.Generator().manual_seed(2)
    grad_output = torch.rand(1, 13, 16, generator=generator) - 0.5
    results = emulate(emulator, far, grad_output, (4, 4), exact=False, grad_value=grad_value)
    expected = emulate(emulator, near, grad_output, (4, 4), exact=False)
    own_level = (results[0], results[1][:, -64:], *(result[:, :, :, 1:] for result in results[2:]))
    for actual, wanted in zip(own_level, expected, strict=True):
        torch.testing.assert_close(actual, wanted)
