from __future__ import annotations

import pytest
import torch
from torch import nn

from msdetr.engine.ema import WeightAverage


def set_weight(model: nn.Module, value: float) -> None:
    with torch.no_grad():
        model.get_parameter("weight").fill_(value)


def test_average_follows_the_recurrence() -> None:
    model = nn.Linear(1, 1)
    set_weight(model, 1.0)
    ema = WeightAverage(model, 0.75)
    expected = 1.0
    for value in (2.0, -3.0, 0.5):
        set_weight(model, value)
        ema.update()
        expected = 0.75 * expected + 0.25 * value
    assert ema.state_dict()["weight"].item() == pytest.approx(expected)
    assert model.weight.item() == 0.5


def test_applied_swaps_the_weights_and_swaps_back() -> None:
    model = nn.Linear(1, 1)
    set_weight(model, 1.0)
    ema = WeightAverage(model, 0.5)
    set_weight(model, 3.0)
    ema.update()
    weight = model.weight
    with ema.applied():
        assert model.weight is weight
        assert model.weight.item() == 2.0
    assert model.weight.item() == 3.0
    assert ema.state_dict()["weight"].item() == 2.0


def test_the_weights_come_back_after_an_error() -> None:
    model = nn.Linear(1, 1)
    ema = WeightAverage(model, 0.5)
    set_weight(model, 3.0)

    def fail() -> None:
        with ema.applied():
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail()
    assert model.weight.item() == 3.0


def test_buffers_are_averaged_or_copied_by_kind() -> None:
    model = nn.BatchNorm1d(2)
    ema = WeightAverage(model, 0.5)
    model(torch.tensor([[0.0, 2.0], [4.0, 2.0]]))
    ema.update()
    state = ema.state_dict()
    assert state["num_batches_tracked"].item() == 1
    assert model.running_mean is not None
    assert torch.allclose(state["running_mean"], model.running_mean / 2)


def test_tied_weights_are_swapped_once() -> None:
    model = nn.ModuleDict({"a": nn.Linear(1, 1)})
    model["b"] = model["a"]
    ema = WeightAverage(model, 0.5)
    assert list(ema.state_dict()) == ["a.weight", "a.bias"]
    before = model.get_parameter("a.weight").item()
    set_weight(model["a"], before + 2.0)
    with ema.applied():
        assert model.get_parameter("b.weight").item() == before


def test_state_is_restored() -> None:
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    average = WeightAverage(first, 0.9)
    other = WeightAverage(second, 0.9)
    other.load_state_dict(average.state_dict())
    with other.applied():
        assert torch.equal(second.weight, first.weight)


@pytest.mark.parametrize("decay", [0.0, 1.0, 1.5])
def test_decay_outside_its_range_is_refused(decay: float) -> None:
    with pytest.raises(ValueError, match="decay"):
        WeightAverage(nn.Linear(1, 1), decay)
