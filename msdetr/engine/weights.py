"""A model's weights by name, each tensor once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from msdetr.errors import CheckpointError, Problem

_NAMES_SHOWN = 5


def unique_state(model: nn.Module) -> dict[str, Tensor]:
    """Return parameters and persistent buffers, a tensor with several names under its first.

    The tensors are the model's own: writing to them changes the model.
    """
    seen: set[int] = set()
    unique = {}
    for name, value in model.state_dict(keep_vars=True).items():
        if id(value) not in seen:
            seen.add(id(value))
            unique[name] = value.detach()
    return unique


@torch.no_grad()
def load_weights(model: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Copy weights into a model; nothing is changed unless every name and shape fits.

    Args:
        model: Model to fill, on any device.
        weights: Tensors under the names of ``unique_state``.
        source: Where the weights come from, for messages.

    Raises:
        CheckpointError: Names are missing or unexpected, or shapes differ.
    """
    own = unique_state(model)
    problems = find_mismatches(own, weights)
    if problems:
        raise CheckpointError(source, problems)
    for name, value in own.items():
        value.copy_(weights[name])


def find_mismatches(own: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> list[Problem]:
    """List how ``weights`` differ from the names and shapes of ``own``; empty if they fit."""
    misshapen = [
        f"{name} (expected {list(own[name].shape)}, got {list(weights[name].shape)})"
        for name in own
        if name in weights and own[name].shape != weights[name].shape
    ]
    differences = {
        "missing": [name for name in own if name not in weights],
        "unexpected": [name for name in weights if name not in own],
        "of another shape": misshapen,
    }
    return [
        Problem("", f"{len(names)} weights {what}: {_first(names)}; is it another architecture?")
        for what, names in differences.items()
        if names
    ]


def _first(names: Sequence[str]) -> str:
    more = ", ..." if len(names) > _NAMES_SHOWN else ""
    return ", ".join(names[:_NAMES_SHOWN]) + more
