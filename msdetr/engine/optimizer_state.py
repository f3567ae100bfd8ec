"""AdamW's moments, checked before anything touches them.

The fused kernels trust what the state holds: a moment shorter than its parameter would be read and
written past its end. A checkpoint may come from a stranger, so every tensor is compared with its
parameter and copied. Hyperparameters are not taken from a checkpoint; the recipe has them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from msdetr.errors import CheckpointError, Problem

_MOMENTS = ("exp_avg", "exp_avg_sq")
_STEP = "step"
_SHOWN = 5


def restore_moments(state: object, optimizer: Optimizer, *, source: str) -> None:
    """Put moments back that ``Optimizer.state_dict`` gave; nothing changes unless all fit.

    Args:
        state: The optimizer's entry of a training state, as read from a file.
        optimizer: AdamW over the same parameters; keeps its hyperparameters.
        source: Where the state comes from, for messages.

    Raises:
        CheckpointError: Entries are missing, unknown, or do not fit their parameters.
    """
    present = optimizer.state_dict()
    if _names(state) != _names(present):
        raise CheckpointError(source, "was trained with other parameter groups")
    assert isinstance(state, Mapping)
    parameters = dict(_numbered(optimizer))
    problems = _find_problems(state.get("state"), parameters)
    if problems:
        rest = len(problems) - _SHOWN
        more = [Problem("", f"and {rest} more")] if rest > 0 else []
        raise CheckpointError(source, [*problems[:_SHOWN], *more])
    moments = {
        number: {name: _copy(name, value, parameters[number][1]) for name, value in entry.items()}
        for number, entry in state["state"].items()
    }
    optimizer.load_state_dict({"state": moments, "param_groups": present["param_groups"]})


def _names(state: object) -> list[Any] | None:
    try:
        return [(g["name"], g.get("param_names")) for g in state["param_groups"]]  # type: ignore[index]
    except (KeyError, TypeError, AttributeError):
        return None


def _numbered(optimizer: Optimizer) -> Iterator[tuple[int, tuple[str, nn.Parameter]]]:
    """Yield (number in the state, (name, parameter)), in the order of ``state_dict``."""
    number = 0
    for group in optimizer.param_groups:
        names = group.get("param_names") or [f"of {group['name']}"] * len(group["params"])
        for name, parameter in zip(names, group["params"], strict=True):
            yield number, (name, parameter)
            number += 1


def _find_problems(state: object, parameters: Mapping[int, tuple[str, Tensor]]) -> list[Problem]:
    if not isinstance(state, Mapping):
        return [Problem("optimizer", "holds no state of parameters")]
    unknown = [key for key in state if key not in parameters]
    # Before its first step an optimizer has no state at all.
    missing = [parameters[key][0] for key in parameters if key not in state] if state else []
    problems = [Problem(f"entry {str(key)[:40]!r}", "has no parameter") for key in unknown]
    problems += [Problem(name, "has no optimizer state") for name in missing]
    for number, (name, parameter) in parameters.items():
        if number in state:
            problems += _find_odd(name, state[number], parameter)
    return problems


def _find_odd(name: str, entry: object, parameter: Tensor) -> list[Problem]:
    expected = {_STEP, *_MOMENTS}
    if not isinstance(entry, Mapping) or set(entry) != expected:
        return [Problem(name, f"its optimizer state must hold {', '.join(sorted(expected))} only")]
    described = {key: _describe_fault(key, entry[key], parameter) for key in sorted(expected)}
    return [Problem(name, f"{key} {fault}") for key, fault in described.items() if fault]


def _describe_fault(key: str, value: object, parameter: Tensor) -> str | None:
    if not isinstance(value, Tensor) or value.layout != torch.strided:
        return "is not a dense tensor"
    shape = () if key == _STEP else tuple(parameter.shape)
    if tuple(value.shape) != shape:
        return f"must have shape {list(shape)}, has {list(value.shape)}"
    if not value.is_floating_point():
        return f"must be floating-point, is {value.dtype}"
    if not bool(value.isfinite().all()):
        return "holds values that are not finite"
    if key != "exp_avg" and bool((value < 0).any()):
        return "holds negative values"
    return None


def _copy(key: str, value: Tensor, parameter: Tensor) -> Tensor:
    """Copy a checked tensor into memory of its own, laid out as its parameter is."""
    if key == _STEP:
        return torch.tensor(float(value), dtype=torch.float32)
    return torch.empty_like(parameter, device="cpu", requires_grad=False).copy_(value)


def restore_scaler(state: object, scaler: Any, *, source: str) -> None:  # noqa: ANN401 - untyped
    """Put the loss scale of fp16 back; how it grows is not taken from a checkpoint.

    Args:
        state: The scaler's entry of a training state, as read from a file.
        scaler: torch.amp.GradScaler.
        source: Where the state comes from, for messages.

    Raises:
        CheckpointError: It has no scale, or one that is not positive and finite.
    """
    present = scaler.state_dict()
    taken = {}
    for key in ("scale", "_growth_tracker"):
        value = state.get(key) if isinstance(state, Mapping) else None
        smallest = 0 if key == "_growth_tracker" else 2.0**-126
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise CheckpointError(source, f"the scaler's {key} is not a number")
        if not math.isfinite(value) or not smallest <= value < 2.0**127:
            raise CheckpointError(source, f"the scaler's {key} is out of range: {value}")
        taken[key] = type(present[key])(value)
    scaler.load_state_dict({**present, **taken})
