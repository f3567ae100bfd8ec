"""A real detector, stopped and resumed, ends in the same bits: weights, optimizer, rows."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from msdetr.api.training.detection_task import DetectionTask
from msdetr.engine.costs import RunCosts
from msdetr.engine.records import RunRecords
from msdetr.engine.run_state import RunState
from msdetr.engine.task import MicroBatchPlace, StepLoss

Train = Callable[..., Any]
Rows = Callable[[Path], list[dict[str, Any]]]

# Dropout and flips are on already.
FIELDS = {
    "data.augmentation.crop_probability": 0.5,
    "data.augmentation.crop_pre_sizes": "[72, 96]",
    "data.augmentation.crop_min": 48,
    "data.augmentation.crop_max": 72,
    "train.ema": "{decay: 0.9}",
    "train.epochs": 4,
    "train.lr_drop_epochs": "[3]",
}
WORDS = [word for key, value in FIELDS.items() for word in ("--set", f"{key}={value}")]
STEPS_PER_EPOCH = 2
# The bits do not depend on who loads the images. Elsewhere there is no worker: those of a run in
# this process are only waited for when Python collects what is left of it, for seconds.
IN_PROCESS: tuple[str, ...] = ()
BY_WORKER = ("--set", "data.num_workers=1")
HYBRID = {"model.query_groups.hybrid": "{queries: 30}", "supervision.hybrid": "{copies: 2}"}
DENOISING = {
    "model.query_groups.denoising": "{budget: 10, max_targets: 3}",
    "supervision.denoising": "{scale: 1}",
}
GROUPS = {"model.query_groups.group": "{groups: 3}", "supervision.group": "{one_to_many: matched}"}
SUPPRESSOR = {
    "model.placement": "b",
    "model.extra_ffn": "false",
    "model.suppressor": "{learned_keys: 3}",
    "supervision.class_loss": "varifocal",
}
VARIANTS = {
    name: [word for key, value in fields.items() for word in ("--set", f"{key}={value}")]
    for name, fields in {
        "hybrid and contrastive denoising": {**HYBRID, **DENOISING},
        "groups": GROUPS,
        "suppressor": SUPPRESSOR,
    }.items()
}
# Terms that a run has.
TERMS = {
    "hybrid and contrastive denoising": {"hybrid/class/0", "denoising/class/0"},
    "groups": {"group_2_one_to_many/class/0"},
    "suppressor": {"one_to_many/class/1"},
}


def outcome(run: Path, rows_of: Rows) -> tuple[list[Any], list[dict[str, Any]]]:
    """Checkpoints and rows without what the machine adds."""
    timing = ("images_per_second", "memory_mib", "cost")
    rows = [{k: v for k, v in row.items() if k not in timing} for row in rows_of(run)]
    return [checkpoint_of(run / "checkpoints" / name) for name in ("last", "best")], rows


def checkpoint_of(folder: Path) -> tuple[list[str], dict[str, Any]]:
    """Digests of the weights and the optimizer's state, and what stands beside them."""
    lines = (folder / "SHA256SUMS").read_text().splitlines()
    info = json.loads((folder / "checkpoint.json").read_text())
    assert info.pop("costs")["train_seconds"] > 0
    assert info["recipe"]["data"].pop("num_workers") in {0, 1}
    return [line for line in lines if not line.endswith("checkpoint.json")], info


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, train: Train) -> Path:
    folder = tmp_path_factory.mktemp("exact") / "undisturbed"
    assert train(folder, *WORDS).code == 0
    return folder


@contextmanager
def after_epochs(num_epochs: int) -> Iterator[None]:
    """Let this process get SIGINT when so many epochs are trained and evaluated."""
    record = RunRecords.epoch

    def record_and_signal(
        self: RunRecords,
        state: RunState,
        lr: float,
        scores: Mapping[str, float | None],
        costs: RunCosts,
    ) -> None:
        record(self, state, lr, scores, costs)
        if state.epoch + 1 == num_epochs:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunRecords, "epoch", record_and_signal)
        yield


@contextmanager
def within_step(num_step: int) -> Iterator[None]:
    """Let this process get SIGTERM in the second micro-batch of the step after ``num_step``."""
    compute = DetectionTask.loss

    def compute_and_signal(
        self: DetectionTask, *args: Any, place: MicroBatchPlace, **kw: Any
    ) -> Any:
        loss: StepLoss = compute(self, *args, place=place, **kw)
        if (place.step, place.index) == (num_step, 1):
            os.kill(os.getpid(), signal.SIGTERM)
        return loss

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DetectionTask, "loss", compute_and_signal)
        yield


STOPS = {
    "after two of four epochs": (lambda: after_epochs(2), 130, 2 * STEPS_PER_EPOCH),
    "in mid-epoch": (lambda: within_step(5), 143, 5),
}
# How the stopped and the resumed run load.
LOADING = {
    "after two of four epochs": (IN_PROCESS, BY_WORKER),
    "in mid-epoch": (BY_WORKER, IN_PROCESS),
}


@pytest.mark.parametrize("stop", STOPS)
def test_resumed_run_ends_in_the_same_bits(
    stop: str, undisturbed: Path, train: Train, rows_of: Rows, tmp_path: Path
) -> None:
    disturb, code, steps = STOPS[stop]
    before, after = LOADING[stop]
    output = tmp_path / "run"
    with disturb():
        stopped = train(output, *WORDS, *before)
    assert stopped.code == code, stopped.err
    assert f"after step {steps} " in stopped.err
    assert outcome(output, rows_of) != outcome(undisturbed, rows_of)
    resumed = train(output, *WORDS, *after, "--resume")
    assert resumed.code == 0, resumed.err
    assert outcome(output, rows_of) == outcome(undisturbed, rows_of)


@pytest.mark.parametrize("variant", VARIANTS)
def test_resumed_variant_ends_in_the_same_bits(
    variant: str, train: Train, rows_of: Rows, tmp_path: Path
) -> None:
    words = [*WORDS, *VARIANTS[variant], "--set", "train.epochs=2"]
    whole, output = tmp_path / "whole", tmp_path / "run"
    assert train(whole, *words).code == 0
    with within_step(3):
        assert train(output, *words).code == 143
    assert len(rows_of(output)) < len(rows_of(whole))
    resumed = train(output, *words, "--resume")
    assert resumed.code == 0, resumed.err
    assert outcome(output, rows_of) == outcome(whole, rows_of)
    terms = rows_of(output)[-1]["terms"]
    assert TERMS[variant] <= set(terms)
    assert ("one_to_one/class/1" in terms) == (variant != "suppressor")
