from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from msdetr.ops import NativeBuildError, dispatch, ms_deform_attn, native


def call(inputs: Any, backend: str) -> Tensor:
    return ms_deform_attn(
        inputs.value,
        inputs.spatial_shapes,
        inputs.sampling_locations,
        inputs.attention_weights,
        backend=backend,
    )


@pytest.mark.parametrize("backend", ["auto", "native", "gather"])
def test_backends_agree_with_the_reference(samples: Any, backend: str) -> None:
    inputs = samples.make_inputs()

    def compute(*args: Any) -> Tensor:
        return ms_deform_attn(*args, backend=backend)

    def reference(*args: Any) -> Tensor:
        return ms_deform_attn(*args, backend="reference")

    actual = samples.output_and_gradients(compute, inputs)
    expected = samples.output_and_gradients(reference, inputs)
    assert max(samples.relative_errors(actual, expected)) < 1e-12


@pytest.mark.parametrize("backend", ["native", "reference", "gather"])
def test_autocast_lowers_values_only(samples: Any, backend: str) -> None:
    inputs = samples.make_inputs().to(torch.float32)
    inputs.sampling_locations.requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = call(inputs, backend)
        (grad,) = torch.autograd.grad(output.sum(), inputs.sampling_locations)
    assert output.dtype == torch.bfloat16
    assert grad.dtype == torch.float32
    rounded = inputs.to(torch.bfloat16).to(torch.float32)
    expected = call(rounded, "reference").to(torch.bfloat16)
    torch.testing.assert_close(output, expected, rtol=1e-2, atol=1e-6)


@pytest.mark.parametrize("backend", ["native", "reference", "gather"])
def test_low_precision_weights_are_widened_not_the_output(samples: Any, backend: str) -> None:
    inputs = samples.make_inputs().to(torch.bfloat16)
    weights = inputs.attention_weights.to(torch.bfloat16)
    output = ms_deform_attn(
        inputs.value, inputs.spatial_shapes, inputs.sampling_locations, weights, backend=backend
    )
    widened = ms_deform_attn(
        inputs.value,
        inputs.spatial_shapes,
        inputs.sampling_locations,
        weights.float(),
        backend=backend,
    )
    assert output.dtype == torch.bfloat16
    assert torch.equal(output, widened)


@pytest.mark.parametrize("backend", ["native", "reference", "gather"])
def test_no_queries(samples: Any, backend: str) -> None:
    inputs = samples.make_inputs(queries=0)
    value = inputs.value.requires_grad_()
    output = call(inputs, backend)
    assert output.shape == (2, 0, 24)
    (grad,) = torch.autograd.grad(output.sum(), value)
    assert torch.equal(grad, torch.zeros_like(value))


@pytest.mark.parametrize("backend", ["native", "reference", "gather"])
def test_no_images(samples: Any, backend: str) -> None:
    inputs = samples.make_inputs(images=0)
    value = inputs.value.requires_grad_()
    output = call(inputs, backend)
    assert output.shape == (0, 13, 24)
    (grad,) = torch.autograd.grad(output.sum(), value)
    assert grad.shape == (0, 41, 3, 8)


def test_meta_tensors_get_shapes_without_a_build(
    samples: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "load", None)
    inputs = samples.make_inputs()
    value, locations, weights = (tensor.to("meta") for tensor in inputs.tensors)
    for backend in ("auto", "native"):
        output = ms_deform_attn(value, inputs.spatial_shapes, locations, weights, backend=backend)
        assert output.shape == (2, 13, 24)


def test_checkpointing_recomputes_the_same(samples: Any) -> None:
    inputs = samples.make_inputs().to(torch.float32)

    def checkpointed(*args: Any) -> Tensor:
        output: Tensor = checkpoint(ms_deform_attn, *args, use_reentrant=False)
        return output

    plain = samples.output_and_gradients(ms_deform_attn, inputs)
    recomputed = samples.output_and_gradients(checkpointed, inputs)
    assert all(torch.equal(a, b) for a, b in zip(plain, recomputed, strict=True))


def test_auto_falls_back_once_with_one_line(
    samples: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(device_type: str) -> None:
        raise NativeBuildError(f"no compiler for {device_type}\nand more")

    monkeypatch.setattr(native, "load", fail)
    dispatch.default_backend.cache_clear()
    inputs = samples.make_inputs()
    try:
        with caplog.at_level(logging.WARNING, "msdetr"):
            first, second = call(inputs, "auto"), call(inputs, "auto")
        with pytest.raises(NativeBuildError, match="no compiler for cpu"):
            call(inputs, "native")
    finally:
        dispatch.default_backend.cache_clear()
    assert torch.equal(first, call(inputs, "reference"))
    assert torch.equal(first, second)
    assert [record.getMessage() for record in caplog.records] == [
        "deformable attention on cpu is slow: no compiler for cpu"
    ]


def test_refusals_name_expected_and_actual(samples: Any) -> None:
    inputs = samples.make_inputs()
    value, locations, weights = inputs.tensors
    shapes = inputs.spatial_shapes
    with pytest.raises(ValueError, match=r"value must have 39 cells for .*, got 41"):
        ms_deform_attn(value, ((5, 7), (2, 2)), locations, weights)
    with pytest.raises(ValueError, match=r"must be \[B, S, M, D\], got shape \[2, 41, 24\]"):
        ms_deform_attn(value.flatten(2), shapes, locations, weights)
    with pytest.raises(ValueError, match=r"sampling_locations must have shape .* got .* 4, 2, 2\]"):
        ms_deform_attn(value, shapes, locations.repeat(1, 1, 1, 2, 1, 1), weights)
    with pytest.raises(ValueError, match=r"attention_weights must have shape .*, got \[2, 13, 3"):
        ms_deform_attn(value, shapes, locations, weights[..., :1])
    with pytest.raises(ValueError, match=r"sampling_locations must be on cpu, got meta"):
        ms_deform_attn(value, shapes, locations.to("meta"), weights)
    with pytest.raises(ValueError, match=r"attention_weights must be floating point, got .*int64"):
        ms_deform_attn(value, shapes, locations, weights.long())
    with pytest.raises(ValueError, match=r"value must be floating point, got torch.int32"):
        ms_deform_attn(value.int(), shapes, locations, weights)
    with pytest.raises(ValueError, match=r"one of auto, reference, gather, native, got 'fast'"):
        ms_deform_attn(value, shapes, locations, weights, backend="fast")
