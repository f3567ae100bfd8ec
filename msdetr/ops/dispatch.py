"""Choice of a backend for multi-scale deformable attention."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from msdetr.ops import native
from msdetr.ops.gather import ms_deform_attn_gather
from msdetr.ops.reference import ms_deform_attn_reference
from msdetr.ops.schema import accumulate_dtype, autocast_value, without_autocast

Backend = Literal["auto", "reference", "gather", "native"]

BACKENDS: tuple[str, ...] = ("auto", "reference", "gather", "native")

_LOGGER = logging.getLogger("msdetr")


def ms_deform_attn(
    value: Tensor,
    spatial_shapes: Sequence[tuple[int, int]],
    sampling_locations: Tensor,
    attention_weights: Tensor,
    *,
    backend: str = "auto",
) -> Tensor:
    """Sum bilinear samples of several feature levels, weighted per query, head and point.

    Coordinates, weights and sums are float32 (float64 for float64 values) whatever the dtype of
    the values; locations and weights of other dtypes are converted. Under autocast the values are
    converted to the region's dtype first.

    Args:
        value: [B, S, M, D] float; the levels' cells one after another, row by row.
        spatial_shapes: (H_l, W_l) of every level, as Python ints; S is the sum of H_l * W_l.
        sampling_locations: [B, Q, M, L, P, 2] float, (x, y) in units of the padded map; samples
            outside [0, 1] see zeros.
        attention_weights: [B, Q, M, L, P] float.
        backend: "native" (C++ or CUDA, built on first use), "reference" (grid_sample), "gather"
            (row gathers only, for exports) or "auto": native where it can be built, else
            reference. An explicit choice never falls back.

    Returns:
        [B, Q, M * D], dtype of the values; head m fills channels m*D..(m+1)*D-1.

    Raises:
        ValueError: Shapes, dtypes or devices do not fit, or the backend is unknown.
        NativeBuildError: "native" was requested and cannot be built.

    Source: Zhu et al., Deformable DETR, ICLR 2021, equation 3.
    """
    _check_inputs(value, spatial_shapes, sampling_locations, attention_weights)
    chosen = _choose(backend, value.device.type)
    if chosen == "native":
        precise = accumulate_dtype(value.dtype)
        level_sizes = [size for shape in spatial_shapes for size in shape]
        output: Tensor = torch.ops.msdetr.ms_deform_attn(
            value, level_sizes, sampling_locations.to(precise), attention_weights.to(precise)
        )
        return output
    compute = ms_deform_attn_gather if chosen == "gather" else ms_deform_attn_reference
    return _compute_precisely(compute, value, spatial_shapes, sampling_locations, attention_weights)


def _compute_precisely(
    compute: Callable[[Tensor, Sequence[tuple[int, int]], Tensor, Tensor], Tensor],
    value: Tensor,
    spatial_shapes: Sequence[tuple[int, int]],
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> Tensor:
    value = autocast_value(value)
    precise = accumulate_dtype(value.dtype)
    with without_autocast(value.device.type):
        output = compute(
            value.to(precise),
            spatial_shapes,
            sampling_locations.to(precise),
            attention_weights.to(precise),
        )
    return output.to(value.dtype)


def _choose_backend(backend: str, device_type: str) -> str:
    if backend == "auto":
        return default_backend(device_type)
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {backend!r}")
    if backend == "native":
        _load(device_type)
    return backend


@functools.cache
def default_backend(device_type: str) -> str:
    """Name the backend that "auto" means on a type of device, building it if need be."""
    if device_type not in {"cpu", "cuda", "meta"}:
        return "reference"
    try:
        _load(device_type)
    except native.NativeBuildError as error:
        reason = str(error).splitlines()[0]
        _LOGGER.warning("deformable attention on %s is slow: %s", device_type, reason)
        return "reference"
    return "native"


def _load(device_type: str) -> None:
    if device_type == "meta":
        return  # shapes only: the registered fake kernels suffice
    if device_type not in {"cpu", "cuda"}:
        raise native.NativeBuildError(f"no native kernels for device {device_type!r}")
    native.load("cpu" if device_type == "cpu" else "cuda")


# Compiled graphs take the choice as a constant instead of tracing the build.
_choose = torch.compiler.assume_constant_result(_choose_backend)  # type: ignore[no-untyped-call]


def _check_inputs(
    value: Tensor,
    spatial_shapes: Sequence[tuple[int, int]],
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> None:
    if value.dim() != 4:
        raise ValueError(f"value must be [B, S, M, D], got shape {list(value.shape)}")
    if sampling_locations.dim() != 6:
        shape = list(sampling_locations.shape)
        raise ValueError(f"sampling_locations must be [B, Q, M, L, P, 2], got shape {shape}")
    images, cells, heads, _ = value.shape
    queries, points = sampling_locations.shape[1], sampling_locations.shape[4]
    expected_cells = sum(height * width for height, width in spatial_shapes)
    if cells != expected_cells:
        shapes = list(spatial_shapes)
        raise ValueError(f"value must have {expected_cells} cells for {shapes}, got {cells}")
    expected = (images, queries, heads, len(spatial_shapes), points)
    if sampling_locations.shape != (*expected, 2):
        shape = list(sampling_locations.shape)
        raise ValueError(f"sampling_locations must have shape {[*expected, 2]}, got {shape}")
    if attention_weights.shape != expected:
        shape = list(attention_weights.shape)
        raise ValueError(f"attention_weights must have shape {list(expected)}, got {shape}")
    for name, tensor in (
        ("value", value),
        ("sampling_locations", sampling_locations),
        ("attention_weights", attention_weights),
    ):
        if tensor.device != value.device:
            raise ValueError(f"{name} must be on {value.device}, got {tensor.device}")
        if not tensor.is_floating_point():
            raise ValueError(f"{name} must be floating point, got {tensor.dtype}")
