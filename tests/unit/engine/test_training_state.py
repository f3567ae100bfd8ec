"""A training state goes back only where it came from."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import AdamW

from msdetr.engine.training_state import collect_training_state, restore_training_state
from msdetr.errors import CheckpointError


def make_optimizer(name: str = "base", size: int = 2) -> AdamW:
    parameter = nn.Parameter(torch.ones(size))
    optimizer = AdamW([{"params": [parameter], "name": name}], lr=0.1)
    parameter.sum().backward()
    optimizer.step()
    return optimizer


def restore(state: dict[str, Any], optimizer: AdamW, *, scaler: Any = None, seed: int = 5) -> None:
    restore_training_state(state, optimizer=optimizer, scaler=scaler, seed=seed, source="ckpt")


def collect(optimizer: AdamW) -> dict[str, Any]:
    return collect_training_state(optimizer=optimizer, scaler=None, seed=5)


def test_moments_come_back() -> None:
    source, target = make_optimizer(), make_optimizer()
    (parameter,) = source.param_groups[0]["params"]
    source.state[parameter]["exp_avg"].fill_(3)
    restore(collect(source), target)
    (parameter,) = target.param_groups[0]["params"]
    assert (target.state[parameter]["exp_avg"] == 3).all()


def test_another_run_is_refused() -> None:
    state = collect(make_optimizer())
    scaler = torch.amp.GradScaler("cpu")
    for part, call in {
        "seed 5, not 6": lambda: restore(state, make_optimizer(), seed=6),
        "another precision": lambda: restore(state, make_optimizer(), scaler=scaler),
        "other parameter groups": lambda: restore(state, make_optimizer("backbone")),
        "lacks scaler, seed": lambda: restore({"optimizer": {}}, make_optimizer()),
        "parameter groups": lambda: restore({**state, "optimizer": 3}, make_optimizer()),
    }.items():
        with pytest.raises(CheckpointError, match=part):
            call()
