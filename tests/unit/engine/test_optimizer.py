from __future__ import annotations

import pytest
import torch
from torch import nn

from msdetr.engine.optimizer import ParameterGroup, apply_lr_factor, build_adamw, check_coverage


@pytest.fixture
def model() -> nn.ModuleDict:
    module = nn.ModuleDict({"a": nn.Linear(2, 3), "b": nn.Linear(3, 1), "frozen": nn.Linear(1, 1)})
    module["frozen"].requires_grad_(requires_grad=False)
    return module


def group(module: nn.Module, lr: float = 0.1) -> ParameterGroup:
    return ParameterGroup(list(module.parameters()), lr)


def test_groups_keep_names_rates_and_decay(model: nn.ModuleDict) -> None:
    groups = {
        "main": group(model["a"], 0.2),
        "slow": group(model["b"], 0.02),
        "none": ParameterGroup([], 0.3),
    }
    optimizer = build_adamw(model, groups, weight_decay=0.01)
    found = [(g["name"], g["lr"], g["weight_decay"]) for g in optimizer.param_groups]
    assert found == [("main", 0.2, 0.01), ("slow", 0.02, 0.01)]
    assert optimizer.state_dict()["param_groups"][1]["param_names"] == ["b.weight", "b.bias"]


def test_factor_applies_to_the_initial_rate(model: nn.ModuleDict) -> None:
    groups = {"main": group(model["a"], 0.2), "slow": group(model["b"], 0.02)}
    optimizer = build_adamw(model, groups, weight_decay=0.0)
    assert apply_lr_factor(optimizer, 0.1) == pytest.approx(0.02)
    assert apply_lr_factor(optimizer, 0.5) == pytest.approx(0.1)
    assert optimizer.param_groups[1]["lr"] == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("names", "telling"),
    [
        (["a"], "in no group: b.weight, b.bias"),
        (["a", "b", "a"], "in more than one place: a.weight, a.bias"),
        (["a", "b", "frozen"], "frozen, or not the model's, in group: 2"),
    ],
)
def test_incomplete_coverage_is_refused(
    model: nn.ModuleDict, names: list[str], telling: str
) -> None:
    groups = {str(index): group(model[name]) for index, name in enumerate(names)}
    with pytest.raises(ValueError, match=telling):
        check_coverage(model, groups)


def test_a_shared_parameter_counts_once(model: nn.ModuleDict) -> None:
    model["alias"] = model["a"]
    check_coverage(model, {"a": group(model["a"]), "b": group(model["b"])})


def test_another_model_s_parameter_is_refused(model: nn.ModuleDict) -> None:
    groups = {
        "own": group(nn.ModuleList([model["a"], model["b"]])),
        "other": group(nn.Linear(1, 1)),
    }
    with pytest.raises(ValueError, match="not the model's"):
        build_adamw(model, groups, weight_decay=0.0)


def test_a_frozen_parameter_is_not_updated(model: nn.ModuleDict) -> None:
    optimizer = build_adamw(
        model, {"a": group(model["a"]), "b": group(model["b"])}, weight_decay=0.1
    )
    before = model.get_parameter("frozen.weight").clone()
    nn.Sequential(model["a"], model["b"])(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    assert torch.equal(model.get_parameter("frozen.weight"), before)
