"""AdamW over named parameter groups."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that share a learning rate.

    Attributes:
        parameters: The parameters, of one model.
        lr: Learning rate before the schedule's factor.
    """

    parameters: Sequence[nn.Parameter]
    lr: float


def build_adamw(
    model: nn.Module, groups: Mapping[str, ParameterGroup], *, weight_decay: float
) -> torch.optim.AdamW:
    """Create AdamW with one named group per entry; groups without parameters are left out.

    The learning rate that the run's log calls ``lr`` is that of the first group.

    Raises:
        ValueError: A trainable parameter is in no group or in several, or a group holds a
            parameter that is frozen or not the model's.
    """
    check_coverage(model, groups)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    entries = [
        {
            "name": group_name,
            "params": [(names[id(parameter)], parameter) for parameter in group.parameters],
            "lr": group.lr,
            "initial_lr": group.lr,
        }
        for group_name, group in groups.items()
        if group.parameters
    ]
    return torch.optim.AdamW(entries, weight_decay=weight_decay, fused=True)


def check_coverage(model: nn.Module, groups: Mapping[str, ParameterGroup]) -> None:
    """Check that the groups hold every trainable parameter of the model exactly once.

    Raises:
        ValueError: They do not; the message names parameters and groups.
    """
    trainable = {id(p): name for name, p in model.named_parameters() if p.requires_grad}
    counts = Counter(id(p) for group in groups.values() for p in group.parameters)
    complaints = {
        "in no group": [name for key, name in trainable.items() if counts[key] == 0],
        "in more than one place": [name for key, name in trainable.items() if counts[key] > 1],
        "frozen, or not the model's, in group": [
            group_name
            for group_name, group in groups.items()
            for p in group.parameters
            if id(p) not in trainable
        ],
    }
    found = [f"{what}: {_some(names)}" for what, names in complaints.items() if names]
    if found:
        message = "; ".join(found)
        raise ValueError(f"parameter groups do not fit the model: {message}")


def apply_lr_factor(optimizer: torch.optim.Optimizer, factor: float) -> float:
    """Set every group's learning rate to its initial one times ``factor``.

    Returns:
        The learning rate of the first group.
    """
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor
    return float(optimizer.param_groups[0]["lr"])


def _some(names: Sequence[str], limit: int = 5) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
