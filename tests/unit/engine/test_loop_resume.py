"""Trainings that are stopped, fail or crash, and go on: all end in the same bits."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from msdetr.engine.costs import RunCosts
from msdetr.engine.run_directory import RunDirectory
from msdetr.errors import CheckpointError, DataError, InterruptedRunError


def test_two_epochs_and_two_more_are_four(toy: Any, undisturbed: list[Any], tmp_path: Path) -> None:
    toy.make_trainer(tmp_path, epochs=2).fit()
    torch.manual_seed(99)
    trainer = toy.make_trainer(tmp_path, epochs=4)
    trainer.resume(RunDirectory(tmp_path).last)
    trainer.fit()
    assert toy.everything(tmp_path) == undisturbed


@pytest.mark.parametrize("step", [0, 1, 3, 7, 10, 19])
def test_a_run_stopped_in_mid_epoch_goes_on_exactly(
    toy: Any, undisturbed: list[Any], tmp_path: Path, step: int
) -> None:
    def loader(epoch: int, start_step: int) -> Iterator[Any]:
        for number in range(start_step, toy.STEPS_PER_EPOCH):
            if epoch * toy.STEPS_PER_EPOCH + number == step:
                signal.raise_signal(signal.SIGTERM)
            yield from (toy.make_batch(epoch, number, index) for index in range(4))

    with pytest.raises(InterruptedRunError, match=f"SIGTERM after step {step} ") as caught:
        toy.make_trainer(tmp_path, epochs=4, loader=loader).fit()
    assert caught.value.exit_code == 143
    trainer = toy.make_trainer(tmp_path, epochs=4)
    trainer.resume(RunDirectory(tmp_path).last)
    assert trainer.state.step == step
    trainer.fit()
    assert toy.everything(tmp_path) == undisturbed


def test_a_run_stopped_while_its_operations_are_counted_keeps_the_row_of_the_step(
    toy: Any, undisturbed: list[Any], tmp_path: Path
) -> None:
    trainer = toy.make_trainer(tmp_path, epochs=4)
    trainer.count_flops(lambda _: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(InterruptedRunError, match="SIGTERM after step 1 "):
        trainer.fit()
    trainer = toy.make_trainer(tmp_path, epochs=4)
    trainer.resume(RunDirectory(tmp_path).last)
    trainer.fit()
    assert toy.everything(tmp_path) == undisturbed


@pytest.mark.parametrize("micro_batch", [0, 2, 3])
def test_the_step_under_way_is_discarded(
    toy: Any, undisturbed: list[Any], tmp_path: Path, micro_batch: int
) -> None:
    class InterruptedTask(toy.ToyTask):  # type: ignore[misc]
        def loss(self, *args: Any, **kwargs: Any) -> Any:
            if kwargs["place"].step == 7 and kwargs["place"].index == micro_batch:
                signal.raise_signal(signal.SIGINT)
            return super().loss(*args, **kwargs)

    task = InterruptedTask()
    with pytest.raises(InterruptedRunError, match="SIGINT after step 7 ") as caught:
        toy.make_trainer(tmp_path, epochs=4, task=task).fit()
    assert caught.value.exit_code == 130
    assert len(task.places) == 7 * 4 + micro_batch
    trainer = toy.make_trainer(tmp_path, epochs=4)
    trainer.resume(RunDirectory(tmp_path).last)
    assert trainer.state.step == 7
    trainer.fit()
    assert toy.everything(tmp_path) == undisturbed


def test_a_step_whose_update_has_begun_is_finished(
    toy: Any, undisturbed: list[Any], tmp_path: Path
) -> None:
    trainer = toy.make_trainer(tmp_path, epochs=4)

    def interrupt(*_: Any) -> None:
        if trainer.state.step == 7:
            signal.raise_signal(signal.SIGTERM)

    trainer._optimizer.optimizer.register_step_pre_hook(interrupt)
    with pytest.raises(InterruptedRunError, match="SIGTERM after step 8 "):
        trainer.fit()
    trainer = toy.make_trainer(tmp_path, epochs=4)
    trainer.resume(RunDirectory(tmp_path).last)
    trainer.fit()
    assert toy.everything(tmp_path) == undisturbed


@pytest.mark.parametrize("where", ["loading", "computing"])
def test_a_failure_in_mid_epoch_loses_nothing(
    toy: Any, undisturbed: list[Any], tmp_path: Path, where: str
) -> None:
    def fail(step: int) -> None:
        if step == 8:
            raise DataError("cat.jpg", "is truncated")

    class FailingTask(toy.ToyTask):  # type: ignore[misc]
        def loss(self, *args: Any, **kwargs: Any) -> Any:
            fail(kwargs["place"].step)
            return super().loss(*args, **kwargs)

    def loader(epoch: int, start_step: int) -> Iterator[Any]:
        for number in range(start_step, toy.STEPS_PER_EPOCH):
            fail(epoch * toy.STEPS_PER_EPOCH + number)
            yield from (toy.make_batch(epoch, number, index) for index in range(4))

    failing = {"loader": loader} if where == "loading" else {"task": FailingTask()}
    with pytest.raises(DataError, match="is truncated"):
        toy.make_trainer(tmp_path, epochs=4, **failing).fit()
    assert (
        "the state after step 8 (epoch 2) is saved" in RunDirectory(tmp_path).log_file.read_text()
    )
    trainer = toy.make_trainer(tmp_path, epochs=4)
    trainer.resume(RunDirectory(tmp_path).last)
    assert trainer.state.step == 8
    trainer.fit()
    assert toy.everything(tmp_path) == undisturbed


@pytest.mark.parametrize("step", [2, 8])
def test_a_crash_between_checkpoints_leaves_no_trace(
    toy: Any, undisturbed: list[Any], tmp_path: Path, step: int
) -> None:
    class CrashError(BaseException):
        pass

    def loader(epoch: int, start_step: int) -> Iterator[Any]:
        for number in range(start_step, toy.STEPS_PER_EPOCH):
            if epoch * toy.STEPS_PER_EPOCH + number == step:
                raise CrashError
            yield from (toy.make_batch(epoch, number, index) for index in range(4))

    with pytest.raises(CrashError):
        toy.make_trainer(tmp_path, epochs=4, loader=loader).fit()
    assert toy.rows_of(tmp_path)[-1]["step"] == step
    last = RunDirectory(tmp_path).find_last()
    assert (last is None) == (step < toy.STEPS_PER_EPOCH)
    trainer = toy.make_trainer(tmp_path, epochs=4)
    if last is not None:
        trainer.resume(last)
    trainer.fit()
    assert toy.everything(tmp_path) == undisturbed


def test_a_run_killed_in_evaluation_goes_on_with_the_evaluation(
    toy: Any, undisturbed: list[Any], tmp_path: Path
) -> None:
    class KilledError(Exception):
        pass

    def evaluate(model: Any, costs: RunCosts) -> dict[str, float | None]:
        if toy.rows_of(tmp_path)[-1]["step"] == 15:
            raise KilledError
        scores: dict[str, float | None] = toy.evaluate(model, costs)
        return scores

    with pytest.raises(KilledError):
        toy.make_trainer(tmp_path, epochs=4, evaluate=evaluate).fit()
    task = toy.ToyTask()
    trainer = toy.make_trainer(tmp_path, epochs=4, task=task)
    trainer.resume(RunDirectory(tmp_path).last)
    trainer.fit()
    assert task.places[0].step == 15
    assert toy.everything(tmp_path) == undisturbed


def test_a_finished_run_stays_as_it_is(toy: Any, tmp_path: Path) -> None:
    toy.make_trainer(tmp_path).fit()
    before = toy.everything(tmp_path)
    trainer = toy.make_trainer(tmp_path)
    trainer.resume(RunDirectory(tmp_path).last)
    trainer.fit()
    assert toy.everything(tmp_path) == before


def test_resuming_with_another_seed_is_refused(toy: Any, tmp_path: Path) -> None:
    toy.make_trainer(tmp_path, epochs=1).fit()
    with pytest.raises(CheckpointError, match="seed 3, not 4"):
        toy.make_trainer(tmp_path, seed=4).resume(RunDirectory(tmp_path).last)
