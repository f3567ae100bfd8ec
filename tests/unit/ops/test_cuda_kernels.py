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

# (queries, channels, points, the kernels' lanes, whether each moves 16 bytes or one channel);
# 41 queries are as many as cells
WIDTHS = {
    "whole vectors": (70, 32, 2, 8, True),
    "queries are cells": (41, 32, 2, 8, True),
    "few lanes": (5, 16, 2, 4, True),
    "several rounds of channels": (5, 80, 2, 8, True),
    "more points than one plan holds": (9, 16, 11, 4, True),
    "single channels": (5, 7, 3, 16, False),
    "single channels in rounds": (5, 35, 2, 16, False),
}
ENTRIES = {
    torch.float64: "emulate_double",
    torch.float32: "emulate_float",
    torch.bfloat16: "emulate_bfloat16",
}
TOLERANCES = {torch.float64: 1e-13, torch.float32: 2e-6, torch.bfloat16: 8e-3}


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
    entry = getattr(emulator, ENTRIES[value.dtype])
    assert entry(*width, ctypes.byref(arguments)) == 0
    return tuple(results)


@pytest.mark.parametrize("exact", [False, True], ids=["atomics", "fixed point"])
@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("name", WIDTHS)
def test_matches_the_reference(
    samples: Any, emulator: ctypes.CDLL, name: str, dtype: torch.dtype, exact: bool
) -> None:
    queries, channels, points, lanes, wide = WIDTHS[name]
    inputs = samples.make_inputs(queries=queries, channels=channels, points=points).to(dtype)
    width = (16 // dtype.itemsize if wide else 1, lanes)
    check_against_reference(samples, emulator, inputs, width, exact=exact)


def test_half_vectors_of_narrow_values(samples: Any, emulator: ctypes.CDLL) -> None:
    inputs = samples.make_inputs(queries=70, channels=12).to(torch.bfloat16)
    check_against_reference(samples, emulator, inputs, (4, 8), exact=False)


def check_against_reference(
    samples: Any, emulator: ctypes.CDLL, inputs: Any, width: tuple[int, int], *, exact: bool
) -> None:
    dtype = inputs.value.dtype
    leaves = [tensor.double().requires_grad_() for tensor in inputs.tensors]
    expected = ms_deform_attn(leaves[0], inputs.spatial_shapes, *leaves[1:], backend="reference")
    generator = torch.Generator().manual_seed(2)
    grad_output = (torch.rand(expected.shape, generator=generator) - 0.5).to(dtype)
    gradients = torch.autograd.grad(expected, leaves, grad_output.double())
    actual = emulate(emulator, inputs, grad_output, width, exact=exact)
    errors = samples.relative_errors(actual, (expected.detach(), *gradients))
    assert max(errors) < TOLERANCES[dtype]


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
