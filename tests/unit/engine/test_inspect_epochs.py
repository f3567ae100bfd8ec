"""Looking at the model after every epoch: with which weights, and without any effect."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from msdetr.engine.checkpoint import read_weights


def test_every_epoch_is_shown_with_the_weights_that_are_evaluated(toy: Any, tmp_path: Path) -> None:
    seen = []

    def look(model: nn.Module, num_epochs: int) -> None:
        assert not model.training
        weights = {key: value.clone() for key, value in model.state_dict().items()}
        seen.append((num_epochs, weights))

    trainer = toy.make_trainer(tmp_path / "run", epochs=3, evaluate_every=3)
    trainer.inspect_epochs(look)
    trainer.fit()
    assert [epoch for epoch, _ in seen] == [1, 2, 3]
    saved = read_weights(tmp_path / "run/checkpoints/last")  # averaged
    for key, value in saved.items():
        assert torch.equal(seen[-1][1][key], value)
    assert trainer.model.training


@pytest.mark.parametrize("fails", [False, True])
def test_training_is_the_same_with_and_without(toy: Any, tmp_path: Path, fails: bool) -> None:
    def look(model: nn.Module, _: int) -> None:
        torch.rand(10)  # even drawing random numbers has no effect
        if fails:
            raise RuntimeError("no view")
        assert not model.training

    results = []
    for name in ("with", "without"):
        trainer = toy.make_trainer(tmp_path / name)
        if name == "with":
            trainer.inspect_epochs(look)
        trainer.fit()
        results.append(trainer)
    first, second = (trainer.model.state_dict() for trainer in results)
    assert all(torch.equal(first[key], second[key]) for key in first)
    said = (tmp_path / "with/train.log").read_text()
    assert said.count("this epoch was not inspected: no view") == (2 if fails else 0)


def test_resumed_run_shows_the_epochs_that_were_left(toy: Any, tmp_path: Path) -> None:
    toy.make_trainer(tmp_path / "run", epochs=1).fit()
    seen: list[int] = []
    trainer = toy.make_trainer(tmp_path / "run", epochs=3)
    trainer.resume(tmp_path / "run/checkpoints/last")
    trainer.inspect_epochs(lambda _, num_epochs: seen.append(num_epochs))
    trainer.fit()
    assert seen == [2, 3]
