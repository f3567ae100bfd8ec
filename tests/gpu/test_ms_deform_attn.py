"""The CUDA kernels of deformable attention on a real GPU."""

from __future__ import annotations

import importlib.util
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from msdetr.ops import ms_deform_attn, native

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

TOLERANCES = {
    torch.float64: 1e-12,
    torch.float32: 5e-6,
    torch.bfloat16: 8e-3,
    torch.float16: 1e-3,
}

# (queries, channels, points, spatial shapes); 310 queries are as many as cells
SIZES = {
    "usual heads": (300, 32, 4, ((13, 17), (7, 9), (4, 5), (2, 3))),
    "queries are cells": (310, 32, 4, ((13, 17), (7, 9), (4, 5), (2, 3))),
    "wide heads": (70, 64, 4, ((13, 17), (7, 9))),
    "very wide heads": (70, 160, 4, ((13, 17), (7, 9))),
    "narrow heads": (70, 8, 2, ((8, 8), (4, 4))),
    "multiple of 4": (70, 12, 2, ((8, 8), (4, 4))),
    "odd channels": (70, 7, 3, ((5, 5), (1, 1))),
    "one channel": (3, 1, 1, ((1, 1),)),
    "many points": (20, 16, 9, ((5, 9), (3, 3), (2, 2))),
}


@pytest.fixture(scope="module")
def samples() -> Any:
    path = Path(__file__).parents[1] / "unit" / "ops" / "samples.py"
    spec = importlib.util.spec_from_file_location("ms_deform_attn_samples", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def on_gpu(*args: Any) -> Tensor:
    """Run the native kernels on the GPU; everything comes and goes through the CPU."""
    moved = [each.cuda() if isinstance(each, Tensor) else each for each in args]
    return ms_deform_attn(*moved, backend="native").cpu()


def exact(*args: Any) -> Tensor:
    return ms_deform_attn(*args, backend="reference")


@contextmanager
def determinism(wanted: bool) -> Iterator[None]:
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(wanted)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("deterministic", [False, True])
def test_matches_float64(samples: Any, size: str, dtype: torch.dtype, deterministic: bool) -> None:
    queries, channels, points, spatial_shapes = SIZES[size]
    inputs = samples.make_inputs(
        queries=queries, channels=channels, points=points, spatial_shapes=spatial_shapes
    ).to(dtype)
    with determinism(deterministic):
        actual = samples.output_and_gradients(on_gpu, inputs)
    expected = samples.output_and_gradients(exact, inputs.to(torch.float64))
    assert actual[0].dtype == dtype
    assert max(samples.relative_errors(actual, expected)) < TOLERANCES[dtype]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_deterministic_mode_repeats_exactly(samples: Any, dtype: torch.dtype) -> None:
    inputs = samples.make_inputs(queries=2000, channels=32, points=4).to(dtype)
    with determinism(wanted=True):
        first, *others = [samples.output_and_gradients(on_gpu, inputs) for _ in range(4)]
    for other in others:
        assert all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_gradcheck(samples: Any) -> None:
    inputs = samples.make_inputs(images=1, queries=4, heads=2, channels=5, points=2)
    leaves = [tensor.cuda().requires_grad_() for tensor in inputs.tensors]

    def compute(value: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
        return ms_deform_attn(value, inputs.spatial_shapes, locations, weights, backend="native")

    assert torch.autograd.gradcheck(compute, leaves, nondet_tol=1e-12)


def test_opcheck(samples: Any) -> None:
    native.load("cuda")
    inputs = samples.make_inputs().to(torch.float32)
    value, locations, weights = (tensor.cuda().requires_grad_() for tensor in inputs.tensors)
    torch.library.opcheck(
        torch.ops.msdetr.ms_deform_attn.default,
        (value, inputs.level_sizes, locations, weights),
        rtol=1e-4,
        atol=1e-5,
    )


def test_compiles_whole(samples: Any) -> None:
    inputs = samples.make_inputs().to(torch.float32)
    value, locations, weights = (tensor.cuda() for tensor in inputs.tensors)
    compiled = torch.compile(ms_deform_attn, fullgraph=True)
    arguments = (value, inputs.spatial_shapes, locations, weights)
    torch.testing.assert_close(compiled(*arguments), ms_deform_attn(*arguments))


def test_no_copies_to_the_host(samples: Any) -> None:
    inputs = samples.make_inputs(channels=32).to(torch.float32)
    leaves = [tensor.cuda().requires_grad_() for tensor in inputs.tensors]
    native.load("cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        output = ms_deform_attn(leaves[0], inputs.spatial_shapes, leaves[1], leaves[2])
        torch.autograd.grad(output, leaves, torch.ones_like(output))
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_runs_on_the_current_stream(samples: Any) -> None:
    inputs = samples.make_inputs(queries=3000, channels=32).to(torch.float32)
    value, locations, weights = (tensor.cuda() for tensor in inputs.tensors)
    expected = ms_deform_attn(value, inputs.spatial_shapes, locations, weights)
    stream = torch.cuda.Stream()
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(100_000_000)  # 0.05 s: on another stream the kernel would read zeros
        late = torch.zeros_like(value).copy_(value)
        output = ms_deform_attn(late, inputs.spatial_shapes, locations, weights)
    stream.synchronize()
    assert torch.equal(output, expected)


def test_a_location_that_is_not_finite_shows_in_the_output(samples: Any) -> None:
    inputs = samples.make_inputs(channels=32).to(torch.float32)
    inputs.sampling_locations[1, 4, 2, 0, 1, 0] = math.inf
    output = on_gpu(
        inputs.value, inputs.spatial_shapes, inputs.sampling_locations, inputs.attention_weights
    )
    bad = output.isnan().view(2, 13, 3, 32)
    assert bad[1, 4, 2].all()
    assert bad.sum() == 32


def test_no_queries(samples: Any) -> None:
    inputs = samples.make_inputs(queries=0)
    actual = samples.output_and_gradients(on_gpu, inputs)
    assert actual[0].shape == (2, 0, 24)
    assert not actual[1].any()


def test_autocast_lowers_values_only(samples: Any) -> None:
    inputs = samples.make_inputs(channels=32).to(torch.float32)
    value, locations, weights = (tensor.cuda().requires_grad_() for tensor in inputs.tensors)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        output = ms_deform_attn(value, inputs.spatial_shapes, locations, weights, backend="native")
        (grad,) = torch.autograd.grad(output.sum(), locations)
    assert output.dtype == torch.bfloat16
    assert grad.dtype == torch.float32
    rounded = value.bfloat16().float()
    expected = ms_deform_attn(rounded, inputs.spatial_shapes, locations, weights)
    torch.testing.assert_close(output, expected.bfloat16(), rtol=1e-2, atol=1e-6)


def test_values_beyond_32_bit_indices(samples: Any) -> None:
    if torch.cuda.mem_get_info()[0] < 40 * 2**30:
        pytest.skip("needs 40 GiB of GPU memory")

    def zeros(*shape: int) -> Tensor:
        return torch.zeros(shape, device="cuda")

    far, near = samples.make_far_inputs(zeros)
    rest = (near.spatial_shapes, near.sampling_locations, near.attention_weights)
    value, *others = (tensor.cuda().requires_grad_() for tensor in far.tensors)
    assert value.numel() > 2**31
    output = ms_deform_attn(value, far.spatial_shapes, *others, backend="native")
    torch.testing.assert_close(output.detach().cpu(), exact(near.value, *rest))
    (grad,) = torch.autograd.grad(output.sum(), value)
    leaf = near.value.clone().requires_grad_()
    (expected,) = torch.autograd.grad(exact(leaf, *rest).sum(), leaf)
    torch.testing.assert_close(grad[:, -64:].cpu(), expected)


def test_misaligned_values_take_the_narrow_path(samples: Any) -> None:
    inputs = samples.make_inputs(channels=32).to(torch.float32)
    value, locations, weights = (tensor.cuda() for tensor in inputs.tensors)
    storage = torch.empty(value.numel() + 1, device="cuda")
    misaligned = storage[1:].view(value.shape).copy_(value)
    output = ms_deform_attn(misaligned, inputs.spatial_shapes, locations, weights)
    expected = ms_deform_attn(value, inputs.spatial_shapes, locations, weights)
    torch.testing.assert_close(output, expected)


def test_devices_must_agree(samples: Any) -> None:
    inputs = samples.make_inputs()
    value, locations, weights = inputs.tensors
    with pytest.raises(ValueError, match=r"sampling_locations must be on cuda:0, got cpu"):
        ms_deform_attn(value.cuda(), inputs.spatial_shapes, locations, weights)
