"""Weights by name: shared tensors once, and all or nothing when loading."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from msdetr.engine.weights import load_weights, unique_state
from msdetr.errors import CheckpointError


def make_model() -> nn.Module:
    shared = nn.Linear(2, 3)
    return nn.ModuleDict({"first": shared, "second": shared, "other": nn.Linear(3, 1)})


def test_shared_tensors_appear_under_their_first_name() -> None:
    assert list(unique_state(make_model())) == [
        "first.weight",
        "first.bias",
        "other.weight",
        "other.bias",
    ]


def test_tensors_are_the_models_own() -> None:
    model = make_model()
    unique_state(model)["first.bias"].fill_(7)
    assert (model.state_dict()["second.bias"] == 7).all()


def test_nothing_changes_unless_everything_fits() -> None:
    model = make_model()
    before = {name: value.clone() for name, value in unique_state(model).items()}
    weights = {name: value + 1 for name, value in before.items()}
    wrong = {**weights, "other.bias": torch.zeros(2), "extra": torch.zeros(1)}
    del wrong["first.bias"]
    with pytest.raises(CheckpointError) as caught:
        load_weights(model, wrong, "source")
    text = str(caught.value)
    for part in ("missing: first.bias", "unexpected: extra", "expected [1], got [2]"):
        assert part in text
    assert all(torch.equal(v, before[n]) for n, v in unique_state(model).items())
    load_weights(model, weights, "source")
    assert all(torch.equal(v, weights[n]) for n, v in unique_state(model).items())
