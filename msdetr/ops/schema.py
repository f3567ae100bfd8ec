"""Operator schemas of multi-scale deformable attention: shapes, gradients, autocast.

The kernels themselves are C++ and CUDA (``msdetr/extensions/ms_deform_attn``) and register with
these schemas when their library is loaded. Importing this module compiles and loads nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

FORWARD = "msdetr::ms_deform_attn"
BACKWARD = "msdetr::ms_deform_attn_backward"

# A flat SymInt[] of H, W per level: with an int[] every image size would be compiled separately.
_INPUTS = "Tensor value, SymInt[] level_sizes, Tensor sampling_locations, Tensor attention_weights"
torch.library.define(FORWARD, f"({_INPUTS}) -> Tensor", tags=torch.Tag.pt2_compliant_tag)
torch.library.define(
    BACKWARD,
    f"(Tensor grad_output, {_INPUTS}, bool deterministic) -> (Tensor, Tensor, Tensor)",
    tags=torch.Tag.pt2_compliant_tag,
)


def accumulate_dtype(value_dtype: torch.dtype) -> torch.dtype:
    """Return the dtype of coordinates, attention weights and sums for values of a dtype."""
    return torch.float64 if value_dtype == torch.float64 else torch.float32


def autocast_value(value: Tensor) -> Tensor:
    """Return ``value`` in the dtype of the autocast region, if one is active on its device."""
    device_type = value.device.type
    if not _autocasts(device_type):
        return value
    return value.to(torch.get_autocast_dtype(device_type))


def without_autocast(device_type: str) -> AbstractContextManager[object]:
    """Return a context in which dtypes are left as they are."""
    # Entered only where needed, so that an export in full precision records no autocast region.
    if not _autocasts(device_type):
        return nullcontext()
    return torch.autocast(device_type, enabled=False)


def _autocasts(device_type: str) -> bool:
    return device_type != "meta" and torch.is_autocast_enabled(device_type)


def _fake_forward(
    value: Tensor,
    level_sizes: Sequence[int],  # noqa: ARG001  (the schema's argument)
    sampling_locations: Tensor,
    attention_weights: Tensor,  # noqa: ARG001
) -> Tensor:
    images, _, heads, channels = value.shape
    return value.new_empty(images, sampling_locations.shape[1], heads * channels)


def _fake_backward(  # noqa: PLR0917  (the schema's arguments)
    grad_output: Tensor,  # noqa: ARG001
    value: Tensor,
    level_sizes: Sequence[int],  # noqa: ARG001
    sampling_locations: Tensor,
    attention_weights: Tensor,
    deterministic: bool,  # noqa: ARG001
) -> tuple[Tensor, Tensor, Tensor]:
    return (
        value.new_empty(value.shape),
        sampling_locations.new_empty(sampling_locations.shape),
        attention_weights.new_empty(attention_weights.shape),
    )


def _save_for_backward(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ANN401, ARG001
    value, level_sizes, sampling_locations, attention_weights = inputs
    ctx.save_for_backward(value, sampling_locations, attention_weights)
    ctx.level_sizes = level_sizes


def _differentiate(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None, Tensor, Tensor]:  # noqa: ANN401
    value, sampling_locations, attention_weights = ctx.saved_tensors
    grad_value, grad_locations, grad_weights = torch.ops.msdetr.ms_deform_attn_backward(
        grad_output,
        value,
        ctx.level_sizes,
        sampling_locations,
        attention_weights,
        torch.are_deterministic_algorithms_enabled(),
    )
    return grad_value, None, grad_locations, grad_weights


def _reject_second_derivative(ctx: Any, *grads: Tensor) -> None:  # noqa: ANN401
    raise NotImplementedError(
        "ms_deform_attn has no second derivative; use backend='gather' to differentiate twice"
    )


torch.library.register_fake(FORWARD, _fake_forward)
torch.library.register_fake(BACKWARD, _fake_backward)
torch.library.register_autograd(FORWARD, _differentiate, setup_context=_save_for_backward)
torch.library.register_autograd(BACKWARD, _reject_second_derivative)


def _forward_under_autocast(
    value: Tensor,
    level_sizes: Sequence[int],
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> Tensor:
    value = autocast_value(value)
    precise = accumulate_dtype(value.dtype)
    with without_autocast(value.device.type):
        output: Tensor = torch.ops.msdetr.ms_deform_attn(
            value, level_sizes, sampling_locations.to(precise), attention_weights.to(precise)
        )
    return output


_AUTOCAST = torch.library.Library("msdetr", "FRAGMENT")  # type: ignore[no-untyped-call]
for _key in ("AutocastCPU", "AutocastCUDA"):
    _AUTOCAST.impl("ms_deform_attn", _forward_under_autocast, _key)  # type: ignore[no-untyped-call]
