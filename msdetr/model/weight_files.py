"""Files of backbone weights: reading them, and what does not fit."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from msdetr.errors import CheckpointError, Problem, first_line
from msdetr.pretraining import WEIGHTS_FIELD


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read a state dict: .safetensors, or a file of ``torch.save`` of which no code is run.

    Raises:
        CheckpointError: There is no such file, or it holds something else.
    """
    if not path.is_file():
        raise CheckpointError(
            str(path), f"no such file; set {WEIGHTS_FIELD} to an existing file, imagenet or none"
        )
    try:
        state: Any = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    except pickle.UnpicklingError as error:
        # torch's own words advise to load it unsafely.
        reason = "damaged, or a pickle that holds more than tensors; nothing in it was run"
        raise CheckpointError(str(path), f"cannot be read as a state dict: {reason}") from error
    except (OSError, RuntimeError, EOFError, SafetensorError) as error:
        reason = first_line(error)
        raise CheckpointError(str(path), f"cannot be read as a state dict: {reason}") from error
    if not _is_state_dict(state):
        raise CheckpointError(str(path), "expected a state dict (names and tensors)")
    return dict(state)


def find_misfits(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[Problem]:
    """List the names that only one state dict has, and the tensors of different shapes.

    Args:
        own: Of the backbone.
        given: What is to be loaded into it.
    """
    return [
        Problem(name, _mismatch(own.get(name), given.get(name)))
        for name in sorted(own.keys() | given.keys())
        if name not in own or name not in given or own[name].shape != given[name].shape
    ]


def without_counters(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Leave out the counters of batch norm, which nothing reads."""
    return {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}


def _is_state_dict(state: object) -> bool:
    return isinstance(state, Mapping) and all(isinstance(v, Tensor) for v in state.values())


def _mismatch(own: Tensor | None, given: Tensor | None) -> str:
    if own is None:
        return "unknown to the backbone; remove it, or change the backbone's name or norm"
    if given is None:
        return "missing from the file"
    return f"expected shape {list(own.shape)}, got {list(given.shape)}"
