"""Only moments that fit reach the optimizer, whoever wrote them."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from msdetr.engine.optimizer import ParameterGroup, build_adamw
from msdetr.engine.optimizer_state import restore_moments, restore_scaler
from msdetr.errors import CheckpointError


def make(seed: int = 0, *, step: bool = True) -> torch.optim.AdamW:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    first, second = (list(part.parameters()) for part in model)
    groups = {"base": ParameterGroup(first, 0.1), "slow": ParameterGroup(second, 0.01)}
    optimizer = build_adamw(model, groups, weight_decay=0.1)
    if step:
        model(torch.randn(5, 3)).square().sum().backward()
        optimizer.step()
    return optimizer


def moments_of(optimizer: torch.optim.AdamW) -> dict[str, Any]:
    state: dict[str, Any] = copy.deepcopy(optimizer.state_dict())
    return state


def test_moments_come_back_and_hyperparameters_stay() -> None:
    source, target = make(1), make(2)
    state = moments_of(source)
    for group in state["param_groups"]:
        group.update(lr=9.0, betas=(0.0, 0.0), eps=7.0, weight_decay=5.0, maximize=True)
    restore_moments(state, target, source="ckpt")
    restored = target.state_dict()
    for number, entry in source.state_dict()["state"].items():
        for key, value in entry.items():
            assert torch.equal(restored["state"][number][key], value)
    assert restored["param_groups"] == make(3).state_dict()["param_groups"]


def test_the_state_before_the_first_step_comes_back() -> None:
    target = make()
    restore_moments(moments_of(make(step=False)), target, source="ckpt")
    assert not target.state_dict()["state"]


def test_moments_have_memory_of_their_own() -> None:
    state, target = moments_of(make(1)), make(2)
    state["state"][0]["exp_avg"] = torch.zeros(1).expand(4, 3)
    restore_moments(state, target, source="ckpt")
    moment = target.state_dict()["state"][0]["exp_avg"]
    assert moment.stride() == (3, 1)
    state["state"][1]["exp_avg"].fill_(5.0)
    assert (target.state_dict()["state"][1]["exp_avg"] != 5.0).all()


def change(key: str, value: object) -> Callable[[dict[str, Any]], None]:
    return lambda state: state["state"][0].update({key: value})


FAULTS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "short": (change("exp_avg", torch.zeros(3)), r"exp_avg must have shape \[4, 3\], has \[3\]"),
    "whole numbers": (change("exp_avg", torch.zeros(4, 3).int()), "exp_avg must be floating-point"),
    "sparse": (change("exp_avg", torch.zeros(4, 3).to_sparse()), "exp_avg is not a dense tensor"),
    "no tensor": (change("exp_avg_sq", [0.0] * 12), "exp_avg_sq is not a dense tensor"),
    "infinite": (change("exp_avg", torch.full((4, 3), torch.inf)), "exp_avg .* not finite"),
    "negative": (change("exp_avg_sq", -torch.ones(4, 3)), "exp_avg_sq holds negative"),
    "step": (change("step", torch.ones(2)), r"step must have shape \[\], has \[2\]"),
    "unknown key": (change("max_exp_avg_sq", torch.zeros(4, 3)), "must hold exp_avg"),
    "missing key": (lambda state: state["state"][0].pop("step"), "must hold exp_avg"),
    "no entry": (lambda state: state["state"].pop(2), "1.weight: has no optimizer state"),
    "entry too many": (lambda s: s["state"].update({9: s["state"][0]}), "'9': has no parameter"),
    "odd entry": (lambda state: state["state"].update({0: "moments"}), "must hold exp_avg"),
    "no state": (lambda state: state.pop("state"), "holds no state of parameters"),
    "other names": (lambda s: s["param_groups"][0].update(name="fast"), "other parameter groups"),
    "no groups": (lambda state: state.update(param_groups=3), "other parameter groups"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_does_not_fit_is_refused(fault: str) -> None:
    state, target = moments_of(make(1)), make(2)
    before = moments_of(target)
    damage, message = FAULTS[fault]
    damage(state)
    with pytest.raises(CheckpointError, match=rf"(?s)^ckpt: .*{message}"):
        restore_moments(state, target, source="ckpt")
    after = moments_of(target)
    assert all(
        torch.equal(value, after["state"][number][key])
        for number, entry in before["state"].items()
        for key, value in entry.items()
    )


def test_a_few_lines_tell_of_many_faults() -> None:
    state = moments_of(make(1))
    for entry in state["state"].values():
        entry["exp_avg"] = entry["exp_avg_sq"] = torch.zeros(7)
    with pytest.raises(CheckpointError) as caught:
        restore_moments(state, make(2), source="ckpt")
    assert len(str(caught.value).splitlines()) <= 7
    assert "and 3 more" in str(caught.value)


ODD = (
    *(None, 3, "text", [], {}, torch.zeros(0), torch.tensor(float("nan")), torch.zeros(2**16)),
    *(torch.zeros(4, 3, dtype=torch.float64), torch.zeros(3, 4).t(), torch.zeros(4, 3).bool()),
)


def test_well_formed_but_forged_states_are_refused_or_harmless() -> None:
    """Whatever stands in an entry, the optimizer steps on or one error says why not."""
    draw = random.Random(0)
    refusals = []
    for _ in range(300):
        state, target = moments_of(make(1)), make(2)
        numbers = list(state["state"])
        for _ in range(draw.randint(1, 3)):
            entry = state["state"][draw.choice(numbers)]
            entry[draw.choice(["step", "exp_avg", "exp_avg_sq"])] = draw.choice(ODD)
        try:
            restore_moments(state, target, source="ckpt")
        except CheckpointError as error:
            refusals.append(str(error))
            continue
        for group in target.param_groups:
            for parameter in group["params"]:
                parameter.grad = torch.ones_like(parameter)
        target.step()
    assert 200 < len(refusals) < 300
    assert all(text.startswith("ckpt: ") for text in refusals)


class TestScaler:
    def test_scale_comes_back_and_growth_stays(self) -> None:
        source, target = (torch.amp.GradScaler("cpu") for _ in range(2))
        state = {**source.state_dict(), "scale": 1024.0, "_growth_tracker": 7, "growth_factor": 9.0}
        restore_scaler(state, target, source="ckpt")
        assert target.state_dict() == {
            **source.state_dict(),
            "scale": 1024.0,
            "_growth_tracker": 7,
        }

    @pytest.mark.parametrize(
        "odd", [None, 3, {}, {"scale": "big"}, {"scale": 0.0}, {"scale": float("inf")}]
    )
    def test_odd_scales_are_refused(self, odd: Any) -> None:
        scaler = torch.amp.GradScaler("cpu")
        before = scaler.state_dict()
        with pytest.raises(CheckpointError, match="scaler's scale"):
            restore_scaler(odd, scaler, source="ckpt")
        assert scaler.state_dict() == before
