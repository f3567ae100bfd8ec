"""`msdetr replay`: real trainings that diverge, and the tensor in which each of them does."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from msdetr.engine.records import RunRecords
from msdetr.engine.run_state import RunState
from msdetr.engine.step_report import StepReport

POISONED = "decoder.layers.1.ffn.linear1.weight"


def edit_checkpoint(checkpoint: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    """Change the weights of a checkpoint and make its sums right again."""
    file, sums = checkpoint / "model.safetensors", checkpoint / "SHA256SUMS"
    before = sha256(file.read_bytes()).hexdigest()
    weights = load_file(file)
    change(weights)
    save_file(weights, file)
    after = sha256(file.read_bytes()).hexdigest()
    sums.write_text(sums.read_text().replace(before, after))


def stop_after(number: int, patch: pytest.MonkeyPatch) -> None:
    record = RunRecords.step

    def record_and_stop(self: RunRecords, state: RunState, report: StepReport) -> None:
        record(self, state, report)
        if state.step == number:
            os.kill(os.getpid(), signal.SIGTERM)

    patch.setattr(RunRecords, "step", record_and_stop)


@pytest.fixture(scope="module")
def exploded(train: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training whose first step throws the weights far away."""
    output = tmp_path_factory.mktemp("exploded") / "run"
    done = train(output, "--set", "train.lr=1e30", "--set", "train.clip_norm=null")
    assert done.code == 3
    place = output / "diverged"
    assert f"to see where it stops being finite: msdetr replay {place}" in done.err
    assert "step 2 (epoch 1) diverged: the loss is not finite" in done.err
    return output


@pytest.fixture(scope="module")
def poisoned(train: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training that goes on after a weight was made no number."""
    output = tmp_path_factory.mktemp("poisoned") / "run"
    with pytest.MonkeyPatch.context() as patch:
        stop_after(3, patch)
        assert train(output).code == 143

    def poison(weights: dict[str, Tensor]) -> None:
        weights[POISONED][3, 5] = torch.nan

    edit_checkpoint(output / "checkpoints" / "last", poison)
    done = train(output, "--resume")
    assert done.code == 3
    assert "step 4 (epoch 2) diverged" in done.err
    return output


@pytest.fixture(scope="module")
def report(
    poisoned: Path, msdetr: Callable[..., Any], content_of: Callable[[Path], dict[str, str]]
) -> dict[str, Any]:
    """What is said of the poisoned training; nothing is written."""
    before = content_of(poisoned)
    said = replayed(msdetr, poisoned)
    assert content_of(poisoned) == before
    return said


def replayed(msdetr: Callable[..., Any], path: Path) -> dict[str, Any]:
    done = msdetr("replay", path, "--json")
    assert (done.code, done.err) == (0, ""), done.err
    report: dict[str, Any] = json.loads(done.out)
    return report


def test_poisoned_weight_is_named(report: dict[str, Any]) -> None:
    module, _, own = POISONED.rpartition(".")
    (bad,) = report["weights"]
    assert (bad["module"], bad["what"], bad["num_nan"]) == (module, own, 1)
    assert (report["step"], report["epoch"]) == (4, 2)
    for attempt in report["attempts"]:
        first = attempt["first"]
        assert (first["stage"], first["module"], first["what"]) == ("forward", module, "output")
        # One of the layer's outputs for each of 20 queries of 2 images.
        assert first["num_nan"] == 40
        assert attempt["micro_batch"] == 0
        assert len(attempt["image_ids"]) == 2
    assert [attempt["precision"] for attempt in report["attempts"]] == ["float64", "float32"]


def test_repeated_images_are_those_of_the_step(poisoned: Path, report: dict[str, Any]) -> None:
    info = json.loads((poisoned / "diverged/checkpoint.json").read_text())
    (first, *_) = info["divergence"]["micro_batches"]
    assert report["attempts"][0]["image_ids"] == first["image_ids"]


def test_weights_beyond_float32_are_told_from_bad_mathematics(
    exploded: Path, msdetr: Callable[..., Any]
) -> None:
    report = replayed(msdetr, exploded / "diverged")
    assert report["weights"] == []
    double, single = report["attempts"]
    assert (double["precision"], single["precision"]) == ("float64", "float32")
    # The losses of the training were no numbers, so its forward pass must have gone astray.
    assert single["first"]["stage"] == "forward"
    assert double["first"]["module"] != single["first"]["module"]


def test_words(poisoned: Path, msdetr: Callable[..., Any]) -> None:
    done = msdetr("replay", poisoned / "diverged" / "checkpoint.json")
    lines = done.out.splitlines()
    assert done.code == 0
    assert lines[0] == "step 4 (epoch 2), repeated on the CPU"
    assert lines[1].startswith("before the step: weights: weight of decoder.layers.1.")
    assert lines[2].startswith("float64: first not finite in micro-batch 0, images ")
    assert lines[3].startswith("  forward: output of decoder.layers.1.")
    assert len(lines) == 6


def test_a_step_that_is_finite_here(
    poisoned: Path, msdetr: Callable[..., Any], tmp_path: Path
) -> None:
    run = Path(shutil.copytree(poisoned, tmp_path / "run"))

    def cure(weights: dict[str, Tensor]) -> None:
        weights[POISONED][3, 5] = 0

    edit_checkpoint(run / "diverged", cure)
    done = msdetr("replay", run)
    assert (done.code, done.out) == (4, "")
    assert "step 4 is finite on the CPU in float64 and in float32" in done.err


class TestRefused:
    def test_no_such_place(self, tmp_path: Path, refused_line: Callable[..., str]) -> None:
        line = refused_line("replay", tmp_path / "nothing")
        assert "no checkpoint of a diverged step: expected DIR/diverged of a run" in line

    def test_run_that_did_not_diverge(
        self, run_dir: Path, refused_line: Callable[..., str]
    ) -> None:
        assert "no checkpoint of a diverged step" in refused_line("replay", run_dir)
        line = refused_line("replay", run_dir / "checkpoints/last")
        assert "is no checkpoint of a diverged step" in line

    def test_damaged_checkpoint(
        self, poisoned: Path, tmp_path: Path, refused_line: Callable[..., str]
    ) -> None:
        run = Path(shutil.copytree(poisoned, tmp_path / "run"))
        with (run / "diverged/model.safetensors").open("ab") as file:
            file.write(b"x")
        assert "model.safetensors: is damaged" in refused_line("replay", run)


def test_overfit_can_be_replayed(
    train: Callable[..., Any],
    msdetr: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its images are not augmented, and its epochs repeat them."""
    monkeypatch.setattr("msdetr.api.overfit.OVERFIT_STEPS", 4)
    extreme = ("--set", "train.lr=1e30", "--set", "train.clip_norm=null")
    assert train(tmp_path / "run", "--overfit", "2", *extreme).code == 3
    info = json.loads((tmp_path / "run/diverged/checkpoint.json").read_text())
    assert info["overfit"] == 2
    report = replayed(msdetr, tmp_path / "run")
    (first, *_) = info["divergence"]["micro_batches"]
    assert report["attempts"][1]["image_ids"] == first["image_ids"]


def test_denoising_queries_are_repeated_too(
    train: Callable[..., Any], msdetr: Callable[..., Any], tmp_path: Path
) -> None:
    run, labels = tmp_path / "run", "training_groups.denoising.labels"
    fields = ("model.query_groups.denoising={groups: 2}", "supervision.denoising={}")
    options = [word for field in fields for word in ("--set", field)]
    with pytest.MonkeyPatch.context() as patch:
        stop_after(1, patch)
        assert train(run, *options).code == 143
    edit_checkpoint(
        run / "checkpoints/last", lambda weights: weights[f"{labels}.weight"].fill_(torch.nan)
    )
    assert train(run, *options, "--resume").code == 3
    for attempt in replayed(msdetr, run)["attempts"]:
        assert attempt["first"]["module"] == labels
        assert attempt["micro_batch"] == 0
