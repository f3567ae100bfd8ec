"""The loop with a tiny task: accumulation, records, checkpoints, divergence."""

from __future__ import annotations

import itertools
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from msdetr.engine.checkpoint import read_info, read_weights
from msdetr.engine.costs import RunCosts
from msdetr.engine.metrics_file import read_rows
from msdetr.engine.run_directory import RunDirectory
from msdetr.errors import (
    DataError,
    DivergedError,
    MsdetrError,
    UsageError,
)


def test_accumulation_changes_nothing_but_the_memory(toy: Any, tmp_path: Path) -> None:
    """Four micro-batches give the gradient of the four as one batch."""

    def joined(epoch: int, start_step: int) -> Iterator[Any]:
        for step in range(start_step, toy.STEPS_PER_EPOCH):
            parts = [toy.make_batch(epoch, step, index) for index in range(4)]
            yield toy.ToyBatch(
                torch.cat([part.inputs for part in parts]),
                torch.cat([part.outputs for part in parts]),
                [number for part in parts for number in part.ids],
            )

    options = {"dropout": 0.0, "clip_norm": None}
    several = toy.make_trainer(tmp_path / "several", **options)
    one = toy.make_trainer(tmp_path / "one", micro_batches=1, loader=joined, **options)
    several.fit()
    one.fit()
    for name, value in several.model.state_dict().items():
        torch.testing.assert_close(value, one.model.state_dict()[name], atol=1e-6, rtol=1e-5)


def test_targets_are_counted_over_the_whole_step(toy: Any, tmp_path: Path) -> None:
    task = toy.ToyTask()
    toy.make_trainer(tmp_path, epochs=1, task=task).fit()
    sizes = [[len(toy.make_batch(0, s, i).inputs) for i in range(4)] for s in range(5)]
    assert task.num_targets == [float(sum(step)) for step in sizes for _ in range(4)]
    assert len({sum(step) for step in sizes}) > 1
    assert 0 in {size for step in sizes for size in step}


def test_a_step_without_targets_is_told_to_the_task(toy: Any, tmp_path: Path) -> None:
    def empty(epoch: int, start_step: int) -> Iterator[Any]:
        for _ in range(start_step, toy.STEPS_PER_EPOCH):
            yield toy.ToyBatch(torch.zeros(0, 4), torch.zeros(0, 1), [epoch])

    task = toy.ToyTask()
    toy.make_trainer(tmp_path, epochs=1, micro_batches=1, loader=empty, task=task).fit()
    assert set(task.num_targets) == {0.0}


def test_dropout_depends_on_seed_step_and_micro_batch_only(toy: Any, tmp_path: Path) -> None:
    draws: list[float] = []

    class DrawingTask(toy.ToyTask):  # type: ignore[misc]
        def loss(self, *args: Any, **kwargs: Any) -> Any:
            draws.append(torch.rand(1).item())
            return super().loss(*args, **kwargs)

    toy.make_trainer(tmp_path / "a", epochs=1, task=DrawingTask()).fit()
    first, draws = draws[:], []
    torch.manual_seed(1)
    toy.make_trainer(tmp_path / "b", epochs=1, task=DrawingTask(), evaluate=None).fit()
    assert draws == first
    assert len(set(first)) == len(first) == 20
    draws = []
    toy.make_trainer(tmp_path / "c", epochs=1, task=DrawingTask(), seed=4).fit()
    assert not set(draws) & set(first)


def test_the_gradient_is_clipped(toy: Any, tmp_path: Path) -> None:
    trainer = toy.make_trainer(tmp_path, epochs=1, clip_norm=0.01)
    norms = []
    trainer._optimizer.optimizer.register_step_pre_hook(
        lambda *_: norms.append(
            math.sqrt(sum(p.grad.square().sum().item() for p in trainer.model.parameters()))
        )
    )
    trainer.fit()
    assert norms == pytest.approx([0.01] * 5, rel=1e-4)
    assert all(row["grad_norm"] > 0.01 for row in toy.rows_of(tmp_path) if row["kind"] == "step")


def test_rows_say_what_happened(toy: Any, tmp_path: Path) -> None:
    toy.make_trainer(tmp_path, epochs=2).fit()
    rows = read_rows(RunDirectory(tmp_path).metrics_file)
    assert [(row["kind"], row["epoch"], row["step"]) for row in rows] == [
        *(("step", 0, step) for step in range(1, 6)),
        ("epoch", 0, 5),
        *(("step", 1, step) for step in range(6, 11)),
        ("epoch", 1, 10),
    ]
    step, epoch = rows[0], rows[5]
    assert step["loss"] == pytest.approx(
        step["terms"]["main/square"] + 0.5 * step["terms"]["extra/absolute"]
    )
    assert all(step[key] > 0 for key in ("images_per_second", "memory_mib", "grad_norm"))
    assert epoch["loss"] == pytest.approx(sum(row["loss"] for row in rows[:5]) / 5)
    assert 0 < epoch["ap"] < 1
    assert epoch["ap_small"] is None
    assert [row["lr"] for row in rows[:4]] == pytest.approx([0.05 / 3, 0.1 / 3, 0.05, 0.05])
    assert rows[6]["lr"] == pytest.approx(0.005)


def test_checkpoints_of_a_run(toy: Any, tmp_path: Path) -> None:
    scores = iter([0.1, 0.3, 0.2, 0.25])
    toy.make_trainer(
        tmp_path, epochs=4, keep_every=2, evaluate=lambda *_: {"ap": next(scores)}
    ).fit()
    run = RunDirectory(tmp_path)
    names = sorted(entry.name for entry in run.checkpoints.iterdir())
    assert names == ["best", "epoch_002", "epoch_004", "last"]
    best, last = read_info(run.best), read_info(run.last)
    assert (best["scores"]["ap"], best["run_state"]["epoch"]) == (0.3, 2)
    assert last["run_state"]["best_epoch"] == 1
    assert last["recipe"] == "toy: true\n"
    assert toy.flatten(read_weights(run.best)) == toy.flatten(read_weights(run.epoch_checkpoint(2)))


def test_evaluation_comes_every_few_epochs_and_at_the_end(toy: Any, tmp_path: Path) -> None:
    toy.make_trainer(tmp_path, epochs=5, evaluate_every=2).fit()
    epochs = [row for row in toy.rows_of(tmp_path) if row["kind"] == "epoch"]
    assert ["ap" in row for row in epochs] == [False, True, False, True, True]


def test_the_average_is_what_is_evaluated(toy: Any, tmp_path: Path) -> None:
    seen: list[Tensor] = []

    def evaluate(model: Any, _: RunCosts) -> dict[str, float | None]:
        seen.append(model.first.weight.detach().clone())
        return {"ap": math.nan}

    trainer = toy.make_trainer(tmp_path, epochs=1, evaluate=evaluate)
    trainer.fit()
    last = RunDirectory(tmp_path).last
    assert torch.equal(read_weights(last)["first.weight"], seen[0])
    raw = read_weights(last, averaged=False)["first.weight"]
    assert torch.equal(raw, trainer.model.first.weight)
    assert not torch.equal(raw, seen[0])
    assert toy.rows_of(tmp_path)[-1]["ap"] is None
    assert trainer.model.training


def test_the_average_takes_in_every_step(toy: Any, tmp_path: Path) -> None:
    trainer = toy.make_trainer(tmp_path, epochs=1)
    weight = trainer.model.second.weight
    expected = [weight.detach().clone()]
    trainer._optimizer.optimizer.register_step_post_hook(
        lambda *_: expected.append(0.9 * expected[-1] + 0.1 * weight.detach())
    )
    trainer.fit()
    saved = read_weights(RunDirectory(tmp_path).last)["second.weight"]
    assert len(expected) == 6
    torch.testing.assert_close(saved, expected[-1])


def test_divergence_names_step_images_and_terms(toy: Any, tmp_path: Path) -> None:
    trainer = toy.make_trainer(tmp_path, epochs=2, task=toy.ToyTask(nan_at=7))
    weights: list[Any] = []
    trainer._optimizer.optimizer.register_step_post_hook(
        lambda *_: weights.append(toy.flatten(dict(trainer.model.state_dict())))
    )
    with pytest.raises(DivergedError) as caught:
        trainer.fit()
    message = str(caught.value)
    assert "step 8 (epoch 2)" in message
    assert "micro-batch 1, images 1021: total = nan, main/square = nan" in message
    assert "extra/absolute" not in message
    assert caught.value.exit_code == 3
    assert len(weights) == 7
    assert toy.flatten(dict(trainer.model.state_dict())) == weights[-1]
    assert message.splitlines()[0] in RunDirectory(tmp_path).log_file.read_text()


def test_a_diverged_step_can_be_repeated(toy: Any, tmp_path: Path) -> None:
    with pytest.raises(DivergedError) as caught:
        toy.make_trainer(tmp_path, epochs=2, task=toy.ToyTask(nan_at=7)).fit()
    diverged = RunDirectory(tmp_path).diverged
    values = {"total": "nan", "main/square": "nan"}
    bad = {"index": 1, "image_ids": [1021], "values": values}
    assert read_info(diverged)["divergence"] == {"micro_batches": [bad]}
    again = toy.make_trainer(tmp_path, epochs=2, task=toy.ToyTask(nan_at=7))
    again.resume(diverged)
    with pytest.raises(DivergedError) as repeated:
        again.fit()
    assert str(repeated.value) == str(caught.value)


def test_the_model_is_compiled_on_request(toy: Any, tmp_path: Path) -> None:
    trainer = toy.make_trainer(tmp_path, compile_model=True)
    assert trainer.model._compiled_call_impl is not None
    assert not any("_orig_mod" in name for name in trainer.model.state_dict())


def test_a_gradient_that_is_not_finite_stops_the_run(toy: Any, tmp_path: Path) -> None:
    trainer = toy.make_trainer(tmp_path, epochs=1, clip_norm=None)
    trainer.model.second.weight.register_hook(lambda gradient: gradient * math.inf)
    before = toy.flatten(dict(trainer.model.state_dict()))
    with pytest.raises(DivergedError, match="norm of the gradient is not"):
        trainer.fit()
    assert toy.flatten(dict(trainer.model.state_dict())) == before


def test_data_that_ends_early_is_an_error(toy: Any, tmp_path: Path) -> None:
    def short(_epoch: int, _start: int) -> Iterator[Any]:
        yield from (toy.make_batch(0, 0, index) for index in range(6))

    with pytest.raises(DataError, match="ended in step 2 of 5"):
        toy.make_trainer(tmp_path, loader=short).fit()


def test_bf16_trains_and_fp16_needs_a_gpu(toy: Any, tmp_path: Path) -> None:
    dtypes = set()

    class WatchingTask(toy.ToyTask):  # type: ignore[misc]
        def loss(self, model: Any, batch: Any, **kwargs: Any) -> Any:
            model.first.register_forward_hook(lambda *a: dtypes.add(a[2].dtype))
            return super().loss(model, batch, **kwargs)

    toy.make_trainer(tmp_path / "bf16", epochs=1, precision="bf16", task=WatchingTask()).fit()
    assert dtypes == {torch.bfloat16}
    losses = [row["loss"] for row in toy.rows_of(tmp_path / "bf16")]
    assert all(math.isfinite(loss) for loss in losses)
    with pytest.raises(UsageError, match="fp16 needs a GPU"):
        toy.make_trainer(tmp_path / "fp16", precision="fp16")
    dtypes.clear()
    toy.make_trainer(tmp_path / "fp32", epochs=1, task=WatchingTask()).fit()
    assert dtypes == {torch.float32}


def test_a_full_disk_stops_the_run_with_the_older_checkpoint(
    toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    def evaluate(*_: Any) -> dict[str, float | None]:
        monkeypatch.setattr("msdetr.files.os.fsync", full)
        return {"ap": 0.1}

    with pytest.raises(MsdetrError, match="No space left on device"):
        toy.make_trainer(tmp_path, evaluate=evaluate).fit()
    monkeypatch.undo()
    assert read_info(RunDirectory(tmp_path).last)["run_state"]["step_in_epoch"] == 5


def test_a_file_that_cannot_be_written_stops_the_run_in_one_line(
    toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, _: object) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("msdetr.engine.records.append_row", full)
    with pytest.raises(
        MsdetrError, match=r"metrics\.jsonl: No space left on device; what was"
    ) as e:
        toy.make_trainer(tmp_path).fit()
    assert (e.value.exit_code, len(str(e.value).splitlines())) == (1, 1)


def test_a_jump_of_the_clock_changes_nothing(
    toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undisturbed: list[Any]
) -> None:
    true_time, calls = time.time, itertools.count()
    # Every look at the clock finds it an hour earlier or a day later.
    jumps = itertools.accumulate(itertools.cycle([-3600.0, 86400.0]))
    monkeypatch.setattr(time, "time", lambda: true_time() + next(jumps) + 0 * next(calls))
    toy.make_trainer(tmp_path, epochs=4).fit()
    assert next(calls) > 0
    assert toy.everything(tmp_path) == undisturbed
    rows = read_rows(RunDirectory(tmp_path).metrics_file)
    speeds = [row["images_per_second"] for row in rows if row["kind"] == "step"]
    assert len(speeds) == 20
    assert all(1.0 < speed < 1e6 for speed in speeds)


def test_tensorboard_gets_the_rows(toy: Any, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import (  # noqa: PLC0415
        EventAccumulator,
    )

    toy.make_trainer(tmp_path, epochs=1, tracking_dir=tmp_path).fit()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    points = events.Scalars("step/loss")
    rows = [row for row in toy.rows_of(tmp_path) if row["kind"] == "step"]
    assert [point.step for point in points] == [row["step"] for row in rows]
    assert [point.value for point in points] == pytest.approx([row["loss"] for row in rows])
    assert "epoch/ap" in events.Tags()["scalars"]


def test_progress_goes_to_stderr_and_the_log(
    toy: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    toy.make_trainer(tmp_path, epochs=1).fit()
    out, err = capfd.readouterr()
    assert out == ""
    for text in (err, RunDirectory(tmp_path).log_file.read_text()):
        assert "epoch 1/1  step 5/5  loss" in text
        assert "(main " in text
        assert "images/s" in text
        assert "epoch 1 done  mean loss" in text
    json.loads((tmp_path / "environment.json").read_text())
