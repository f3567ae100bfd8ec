"""What a run has cost, over everything that can happen to it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from msdetr.engine.costs import RunCosts
from msdetr.engine.metrics_file import read_rows
from msdetr.engine.run_directory import RunDirectory
from msdetr.errors import CheckpointError, InterruptedRunError


def costs_of(directory: Path) -> list[dict[str, Any]]:
    rows = read_rows(RunDirectory(directory).metrics_file)
    return [row["cost"] for row in rows if row["kind"] == "epoch"]


def count_inputs(batch: Any) -> int:
    return int(batch.inputs.numel())


def counting(trainer: Any) -> Any:
    trainer.count_flops(count_inputs)
    return trainer


def test_costs_are_those_of_the_work(toy: Any, tmp_path: Path) -> None:
    pause = 0.02
    trainer = toy.make_trainer(tmp_path, epochs=2, task=toy.ToyTask(pause=pause))
    started = time.perf_counter()
    trainer.fit()
    elapsed = time.perf_counter() - started
    first, second = costs_of(tmp_path)
    passes = toy.STEPS_PER_EPOCH * trainer.settings.micro_batches_per_step
    assert passes * pause <= first["train_seconds"] < second["train_seconds"] < elapsed
    assert second["train_seconds"] >= 2 * passes * pause
    seen = [toy.make_batch(0, step, index) for step in range(5) for index in range(4)]
    assert first["images_seen"] == sum(len(batch.ids) for batch in seen)
    assert second["images_seen"] == 2 * first["images_seen"]
    assert [first["evaluation_seconds"], second["evaluation_seconds"]] == [2.0, 4.0]
    assert 10 < first["peak_memory_mib"] <= second["peak_memory_mib"]
    assert first["step_flops"] is None


def test_operations_are_those_of_the_first_step(toy: Any, tmp_path: Path) -> None:
    trainer = toy.make_trainer(tmp_path, epochs=1)
    trainer.count_flops(count_inputs)
    trainer.fit()
    first = [toy.make_batch(0, 0, index) for index in range(4)]
    assert costs_of(tmp_path)[0]["step_flops"] == sum(map(count_inputs, first)) > 0


def test_operations_of_a_part_are_no_count(toy: Any, tmp_path: Path) -> None:
    counts = iter([1, None, 1, 1])
    trainer = toy.make_trainer(tmp_path, epochs=1)
    trainer.count_flops(lambda _: next(counts))
    trainer.fit()
    assert costs_of(tmp_path)[0]["step_flops"] is None


def test_a_resumed_run_adds_up(toy: Any, tmp_path: Path) -> None:
    def interrupt(*_: object) -> dict[str, float | None]:
        raise InterruptedRunError(2, "stopped")

    options = {"epochs": 2, "task": toy.ToyTask(pause=0.01)}
    with pytest.raises(InterruptedRunError):
        counting(toy.make_trainer(tmp_path, evaluate=interrupt, **options)).fit()
    begun = counting(toy.make_trainer(tmp_path, **options))
    begun.resume(RunDirectory(tmp_path).last)
    before = begun.costs.to_dict()
    assert before["train_seconds"] > 0.2
    assert before["images_seen"] > 0
    begun.fit()
    counting(toy.make_trainer(tmp_path / "undisturbed", **options)).fit()
    resumed, undisturbed = costs_of(tmp_path), costs_of(tmp_path / "undisturbed")
    for key in ("images_seen", "step_flops", "evaluation_seconds"):
        assert [row[key] for row in resumed] == [row[key] for row in undisturbed]
    assert resumed[0]["train_seconds"] == before["train_seconds"]
    assert resumed[1]["train_seconds"] >= before["train_seconds"] + 0.2


def test_a_run_ends_when_its_seconds_are_spent(toy: Any, tmp_path: Path) -> None:
    options = {"epochs": 50, "task": toy.ToyTask(pause=0.02), "max_seconds": 0.6}
    trainer = toy.make_trainer(tmp_path, evaluate_every=100, **options)
    state = trainer.fit()
    assert 1 <= state.epoch < 5
    assert state.scores["ap"] > 0
    last_step = 0.08
    assert 0.6 <= trainer.costs.train_seconds < 0.6 + 5 * last_step
    again = toy.make_trainer(tmp_path, **options)
    again.resume(RunDirectory(tmp_path).last)
    assert again.fit() == state
    assert len(costs_of(tmp_path)) == state.epoch


def test_costs_survive_as_json() -> None:
    costs = RunCosts(1.5, 2.5, 3, 4.5, 5, None)
    assert RunCosts.from_dict(costs.to_dict(), "last") == costs
    assert RunCosts.from_dict({}, "last") == RunCosts()


@pytest.mark.parametrize("odd", [{"watts": 3}, {"images_seen": "many"}, {"train_seconds": True}])
def test_odd_costs_are_refused(odd: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match=rf"^last: .*{next(iter(odd))}"):
        RunCosts.from_dict(odd, "last")


def test_only_what_succeeds_counts() -> None:
    costs = RunCosts()
    with pytest.raises(RuntimeError), costs.training():
        raise RuntimeError
    with pytest.raises(RuntimeError), costs.evaluating():
        raise RuntimeError
    assert costs == RunCosts()
    costs.note_memory(3.0, 5.0, 4.0)
    costs.note_memory(1.0)
    assert costs.peak_memory_mib == 5.0
