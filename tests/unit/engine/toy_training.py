"""A tiny regression with dropout as a training task; also a script, for tests in a subprocess."""

from __future__ import annotations

import argparse
import functools
import math
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from msdetr.engine import processes
from msdetr.engine.checkpoint import read_info, read_training_state, read_weights
from msdetr.engine.costs import RunCosts
from msdetr.engine.ema import WeightAverage
from msdetr.engine.loop import Trainer
from msdetr.engine.metrics_file import read_rows
from msdetr.engine.optimizer import ParameterGroup, build_adamw
from msdetr.engine.processes import create_accelerator
from msdetr.engine.run_directory import RunDirectory
from msdetr.engine.schedule import Schedule
from msdetr.engine.settings import TrainerSettings
from msdetr.engine.task import MicroBatchPlace, StepLoss
from msdetr.errors import MsdetrError

STEPS_PER_EPOCH = 5
# Rows differ in these from run to run.
EVALUATION_SECONDS = 2.0
TIMING = ("images_per_second", "memory_mib", "cost")


@dataclass(frozen=True)
class ToyBatch:
    inputs: Tensor
    outputs: Tensor
    ids: list[int]
    skipped: list[str] = field(default_factory=list)

    def to(self, device: torch.device, *, non_blocking: bool = False) -> ToyBatch:
        return ToyBatch(
            self.inputs.to(device, non_blocking=non_blocking),
            self.outputs.to(device, non_blocking=non_blocking),
            self.ids,
            self.skipped,
        )


class ToyModel(nn.Module):
    def __init__(self, dropout: float = 0.1) -> None:
        super().__init__()
        self.first = nn.Linear(4, 8)
        self.norm = nn.LayerNorm(8)
        self.dropout = nn.Dropout(dropout)
        self.second = nn.Linear(8, 1)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden: Tensor = self.norm(self.first(inputs)).relu()
        output: Tensor = self.second(self.dropout(hidden))
        return output


class ToyTask:
    """Squared and absolute error; micro-batches differ in size, and some have no rows."""

    def __init__(self, *, nan_at: int | None = None, pause: float = 0.0) -> None:
        self.nan_at = nan_at
        self.pause = pause
        self.places: list[MicroBatchPlace] = []
        self.num_targets: list[float] = []

    def count_targets(self, batch: ToyBatch) -> int:
        return len(batch.inputs)

    def skipped(self, batch: ToyBatch) -> list[str]:
        return batch.skipped

    def image_ids(self, batch: ToyBatch) -> list[int]:
        return batch.ids

    def loss(
        self, model: nn.Module, batch: ToyBatch, *, num_targets: float, place: MicroBatchPlace
    ) -> StepLoss:
        time.sleep(self.pause)
        self.places.append(place)
        self.num_targets.append(num_targets)
        error = model(batch.inputs).float() - batch.outputs
        normalizer = max(1.0, num_targets)
        square, absolute = error.square().sum() / normalizer, error.abs().sum() / normalizer
        if place.step == self.nan_at and place.index == 1:
            square = square * math.nan
        weights = {"main/square": 1.0, "extra/absolute": 0.5}
        terms = {"main/square": square, "extra/absolute": absolute}
        return StepLoss(square + 0.5 * absolute, terms, weights)


def make_batch(epoch: int, step: int, index: int) -> ToyBatch:
    generator = torch.Generator().manual_seed(epoch * 10_000 + step * 100 + index)
    inputs = torch.randn((index * 3 + step) % 5, 4, generator=generator)
    outputs = inputs.sum(dim=1, keepdim=True) + 1.0
    return ToyBatch(inputs, outputs, [epoch * 1000 + step * 10 + index])


def evaluate(model: nn.Module, costs: RunCosts) -> dict[str, float | None]:
    assert not model.training
    inputs = torch.eye(4)
    with torch.no_grad():
        error = (model(inputs) - 2.0).abs().mean().item()
    costs.evaluation_seconds += EVALUATION_SECONDS
    return {"ap": 1.0 / (1.0 + error), "ap_small": None}


def make_trainer(directory: Path, **options: Any) -> Trainer[ToyBatch]:
    """Build a trainer; options: epochs, micro_batches, task, ema, evaluate, dropout, ..."""
    accelerator = create_accelerator(
        device="cpu",
        precision=options.get("precision", "fp32"),
        tracking_dir=options.get("tracking_dir"),
    )
    torch.manual_seed(7)
    model = ToyModel(options.get("dropout", 0.1))
    groups = {
        "main": ParameterGroup([*model.first.parameters(), *model.norm.parameters()], 0.05),
        "head": ParameterGroup(list(model.second.parameters()), 0.01),
    }
    micro_batches = options.get("micro_batches", 4)
    rank, num_processes = accelerator.process_index, accelerator.num_processes

    def loader(epoch: int, start_step: int) -> Iterator[ToyBatch]:
        for step in range(start_step, STEPS_PER_EPOCH):
            for index in range(rank, micro_batches, num_processes):
                yield make_batch(epoch, step, index)

    run = RunDirectory(directory)
    if not run.holds_run and accelerator.is_main_process:
        run.create(recipe_text="toy: true\n", environment={"processes": num_processes})
    accelerator.wait_for_everyone()
    settings = TrainerSettings(
        epochs=options.get("epochs", 2),
        steps_per_epoch=STEPS_PER_EPOCH,
        micro_batches_per_step=micro_batches,
        seed=options.get("seed", 3),
        clip_norm=options.get("clip_norm", 1.0),
        log_every_steps=1,
        evaluate_every_epochs=options.get("evaluate_every", 1),
        keep_every_epochs=options.get("keep_every"),
        max_seconds=options.get("max_seconds"),
        compile_model=options.get("compile_model", False),
    )
    return Trainer(
        accelerator=accelerator,
        model=model,
        optimizer=build_adamw(model, groups, weight_decay=1e-2),
        schedule=Schedule(drop_epochs=(1, 3), warmup_steps=3),
        task=options.get("task") or ToyTask(),
        loader_for_epoch=options.get("loader", loader),
        settings=settings,
        run_directory=run,
        info={"recipe": "toy: true\n"},
        evaluate=options.get("evaluate", evaluate),
        ema=WeightAverage(model, 0.9) if options.get("ema", True) else None,
    )


def rows_of(directory: Path) -> list[dict[str, Any]]:
    """Rows of the metrics file, without what the machine adds."""
    rows = read_rows(RunDirectory(directory).metrics_file)
    return [{k: v for k, v in row.items() if k not in TIMING} for row in rows]


def flatten(value: Any) -> list[Any]:
    """Numbers and texts of a tree of containers and tensors, in a fixed order."""
    if isinstance(value, dict):
        return [entry for key in sorted(value, key=str) for entry in flatten(value[key])]
    if isinstance(value, list | tuple):
        return [entry for part in value for entry in flatten(part)]
    return [value.tolist() if isinstance(value, Tensor) else value]


def everything(directory: Path) -> list[Any]:
    """Weights, average, optimizer, state and rows: all that a run is."""
    last = RunDirectory(directory).last
    return [
        flatten(read_weights(last, averaged=False)),
        flatten(read_weights(last, averaged=True)),
        flatten(read_training_state(last)),
        {key: value for key, value in read_info(last).items() if key != "costs"},
        rows_of(directory),
    ]


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--pause", type=float, default=0.0)
    parser.add_argument("--nan-at", type=int)
    parser.add_argument("--slow-evaluation", action="store_true")
    parser.add_argument("--evaluation-seconds", type=float, help="of rank 0 alone")
    parser.add_argument("--wait-seconds", type=float, help="how long the others wait for it")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    options: dict[str, Any] = {}
    if arguments.slow_evaluation:
        options["evaluate"] = _wait_for_signal
    if arguments.evaluation_seconds is not None:
        options["evaluate"] = functools.partial(_keep_waiting, arguments.evaluation_seconds)
    if arguments.wait_seconds is not None:
        processes.WAIT_LIMIT = timedelta(seconds=arguments.wait_seconds)
    task = ToyTask(pause=arguments.pause, nan_at=arguments.nan_at)
    try:
        trainer = make_trainer(arguments.directory, epochs=arguments.epochs, task=task, **options)
        last = RunDirectory(arguments.directory).find_last()
        if last is not None:
            trainer.resume(last)
        trainer.fit()
    except MsdetrError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


def _wait_for_signal(*_: object) -> dict[str, float | None]:
    sys.stderr.write("evaluating\n")
    sys.stderr.flush()
    time.sleep(60)
    return {"ap": 0.0}


def _keep_waiting(seconds: float, model: nn.Module, costs: RunCosts) -> dict[str, float | None]:
    if os.environ["RANK"] == "0":
        time.sleep(seconds)
    return evaluate(model, costs)


if __name__ == "__main__":
    sys.exit(main())
