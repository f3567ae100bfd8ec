"""The first tensor that is not finite is named, wherever in a step it arises."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from msdetr.engine.non_finite import NonFinite, NonFiniteWatch, find_bad_weights, find_in_norm


class Scale(nn.Module):
    """Multiplies by a factor."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


class Root(nn.Module):
    """Square root of the distance to 1, whose gradient is infinite there."""

    def forward(self, x: Tensor) -> Tensor:
        return (x - x.detach()).abs().sqrt()


class Between(nn.Module):
    """Makes infinite values between its two parts."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x)
        output: Tensor = self.second(hidden / torch.zeros_like(hidden))
        return output


def watch_step(model: nn.Module, *, grad: bool = True) -> NonFinite | None:
    torch.manual_seed(0)
    watch = NonFiniteWatch(model)
    with watch.watching():
        total = model(torch.randn(2, 4)).sum()
        watch.look_at_losses({"term": total}, total)
        if grad:
            total.backward()
    return watch.first


def test_finite_step() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 1))
    assert watch_step(model) is None
    assert find_bad_weights(model) == []
    assert find_in_norm(model) is None


def test_the_innermost_module_is_named() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Sequential(Scale(1.0), Scale(math.inf)), nn.ReLU())
    found = watch_step(model)
    assert found is not None
    assert (found.stage, found.module, found.what) == ("forward", "1.1", "output")
    assert (found.shape, found.num_nan, found.num_infinite) == ((2, 4), 0, 8)
    assert str(found) == "forward: output of 1.1 (2 x 4): 0 nan, 8 infinite values"


def test_what_happens_between_two_parts_is_the_outer_modules() -> None:
    found = watch_step(nn.Sequential(nn.Linear(4, 4), Between()))
    assert found is not None
    assert (found.stage, found.module) == ("forward", "1")
    assert found.what == "what goes into 1.second"


def test_weights_and_buffers() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    with torch.no_grad():
        model[0].weight[1, 2] = math.nan
        model[1].running_var[3] = math.inf
    first, second = find_bad_weights(model)
    assert (first.stage, first.module, first.what, first.num_nan) == ("weights", "0", "weight", 1)
    assert (second.module, second.what, second.num_infinite) == ("1", "running_var", 1)


def test_gradient_of_an_output() -> None:
    model = nn.Sequential(nn.Linear(4, 4), Scale(2.0), Root(), nn.Flatten())
    found = watch_step(model)
    assert found is not None
    assert (found.stage, found.module, found.what) == ("gradient", "1", "gradient of the output")


def test_gradient_of_a_parameter() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shift = nn.Parameter(torch.zeros(4))

        def forward(self, x: Tensor) -> Tensor:
            return x + self.shift.sqrt()

    found = watch_step(nn.Sequential(nn.Linear(4, 4), Own()))
    assert found is not None
    assert (found.stage, found.module, found.what) == ("gradient", "1", "gradient of shift")


def test_loss_terms_come_before_their_total() -> None:
    watch = NonFiniteWatch(nn.Identity())
    watch.look_at_losses({"a": torch.tensor(1.0), "b": torch.tensor(math.nan)}, torch.tensor(0.0))
    assert watch.first == NonFinite("loss", "b", "value", (), 1, 0)
    watch = NonFiniteWatch(nn.Identity())
    watch.look_at_losses({"a": torch.tensor(1.0)}, torch.tensor(math.inf))
    assert watch.first is not None
    assert (watch.first.stage, watch.first.module) == ("loss", "the weighted total")


def test_norm_may_overflow_alone() -> None:
    model = nn.Linear(2, 1)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 1e18)
    assert find_in_norm(model) is None
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 1e20)
    found = find_in_norm(model)
    assert found is not None
    assert (found.stage, found.num_infinite) == ("gradient", 1)


@pytest.mark.parametrize("factor", [1.0, math.inf])
def test_hooks_are_removed(factor: float) -> None:
    model = nn.Sequential(nn.Linear(4, 4), Scale(factor))
    watch_step(model)
    for module in model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
    watch = NonFiniteWatch(model)
    model(torch.randn(2, 4))
    assert watch.first is None
