"""Where the model keeps single precision, whatever the training precision."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch
from torch import Tensor

from msdetr.ops.schema import without_autocast


def at_least_float32(x: Tensor) -> Tensor:
    """Raise half-precision tensors to float32; others stay as they are."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def full_precision(x: Tensor) -> AbstractContextManager[object]:
    """Switch autocast off on the device of ``x``, for layers that yield coordinates."""
    return without_autocast(x.device.type)
