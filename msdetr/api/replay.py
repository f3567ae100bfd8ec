"""Repeat a diverged step to see where: the workflow behind ``msdetr replay``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from msdetr.api.checkpoints.assigner_file import check_same_assigner
from msdetr.api.datasets import load_training_data
from msdetr.api.training.resume import check_same_annotations
from msdetr.api.training.session import TrainingSession
from msdetr.build import build_epoch_plan
from msdetr.data.batching import Batch
from msdetr.engine.checkpoint import INFO_FILE, find_checkpoint, read_info, read_weights
from msdetr.engine.non_finite import NonFinite, NonFiniteWatch, find_bad_weights, find_in_norm
from msdetr.engine.processes import create_accelerator
from msdetr.engine.run_directory import RunDirectory
from msdetr.engine.run_state import RunState
from msdetr.engine.task import MicroBatchPlace
from msdetr.engine.weights import load_weights
from msdetr.errors import CheckpointError, VerificationError
from msdetr.recipe import Recipe, recipe_from_dict
from msdetr.seeding import seed_torch

_NAMES = {"fp32": "float32"}
_LOWER_PRECISION = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Attempt:
    """The step, repeated in one precision.

    Attributes:
        precision: Name of the arithmetic.
        micro_batch: Micro-batch in which something was not finite, counted over all processes;
            None for the sum over all of them, or if everything is finite.
        image_ids: Images of that micro-batch.
        first: The first tensor that is not finite, or None.
    """

    precision: str
    micro_batch: int | None = None
    image_ids: tuple[int, ...] = ()
    first: NonFinite | None = None

    def line(self) -> str:
        """Return the attempt in plain words."""
        if self.first is None:
            return f"{self.precision}: every tensor is finite"
        if self.micro_batch is None:
            return f"{self.precision}: {self.first}"
        images = ", ".join(map(str, self.image_ids))
        where = f"micro-batch {self.micro_batch}, images {images}"
        return f"{self.precision}: first not finite in {where}:\n  {self.first}"


@dataclass(frozen=True)
class ReplayReport:
    """Where a diverged step stops being finite.

    Attributes:
        checkpoint: State before the step.
        step: The step, counted from 1 over the whole run.
        epoch: Its epoch, counted from 1.
        weights: Weights that were not finite before the step.
        attempts: In float64, then in the precision of the training run.
    """

    checkpoint: Path
    step: int
    epoch: int
    weights: tuple[NonFinite, ...]
    attempts: tuple[Attempt, ...]

    def lines(self) -> list[str]:
        """Return the report in plain words."""
        lines = [f"step {self.step} (epoch {self.epoch}), repeated on the CPU"]
        lines += [f"before the step: {bad}" for bad in self.weights]
        return [*lines, *(attempt.line() for attempt in self.attempts)]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return {**asdict(self), "checkpoint": str(self.checkpoint)}


def replay(path: Path) -> ReplayReport:
    """Repeat a diverged step on the CPU, in float64 and in the training run's own precision.

    Args:
        path: The ``diverged`` checkpoint that the run left, its ``checkpoint.json``, or the
            run's directory.

    Raises:
        CheckpointError: There is no such checkpoint, or it is damaged.
        DataError: The data are missing, or are not those of the run.
        VerificationError: Every tensor is finite in either precision.
    """
    checkpoint = _find_diverged(path)
    info = read_info(checkpoint)
    if "divergence" not in info:
        raise CheckpointError(str(checkpoint), "is no checkpoint of a diverged step")
    state = RunState.from_dict(info.get("run_state") or {}, str(checkpoint))
    session = _open_session(checkpoint, info)
    weights = tuple(find_bad_weights(session.model))
    step = _Step(session, state)
    own = _NAMES.get(session.recipe.train.precision, session.recipe.train.precision)
    attempts = (step.run("float64"), step.run(own))
    if all(attempt.first is None for attempt in attempts):
        raise VerificationError(
            f"{checkpoint}: step {state.step + 1} is finite on the CPU in float64 and in {own}; "
            "results differ on the device of the training run (other dropout, other order of sums)"
        )
    return ReplayReport(checkpoint, state.step + 1, state.epoch + 1, weights, attempts)


class _Step:
    """The micro-batches of a step, to be run in several precisions."""

    def __init__(self, session: TrainingSession, state: RunState) -> None:
        self._session = session
        self._state = state
        batches = session.batches(state.epoch, state.step_in_epoch)
        self._batches = list(islice(batches, session.plan.micro_batches_per_step))

    def run(self, precision: str) -> Attempt:
        """Run forward and backward passes until something is not finite.

        Args:
            precision: "float64", "float32", or the lower one in which the run computes its layers.
        """
        dtype = torch.float64 if precision == "float64" else torch.float32
        model = self._session.model.to(dtype).train()
        model.zero_grad()
        watch = NonFiniteWatch(model)
        with watch.watching():
            for index, batch in self._in_dtype(dtype):
                self._run_micro_batch(index, batch, watch, _LOWER_PRECISION.get(precision))
                if watch.first is not None:
                    ids = tuple(batch.targets.image_ids.tolist())
                    return Attempt(precision, index, ids, watch.first)
        return Attempt(precision, first=find_in_norm(model))

    def _run_micro_batch(
        self, index: int, batch: Batch, watch: NonFiniteWatch, lower: torch.dtype | None
    ) -> None:
        task, state = self._session.task, self._state
        place = MicroBatchPlace(self._session.recipe.train.seed, state.epoch, state.step, index)
        num_targets = float(sum(task.count_targets(each) for each in self._batches))
        seed_torch(place.derive_seed("forward"))
        with _autocast(lower):
            loss = task.loss(self._session.model, batch, num_targets=num_targets, place=place)
        watch.look_at_losses(loss.terms, loss.total)
        if watch.first is None:
            loss.total.backward()  # type: ignore[no-untyped-call]

    def _in_dtype(self, dtype: torch.dtype) -> Iterator[tuple[int, Batch]]:
        for index, batch in enumerate(self._batches):
            boxes = batch.targets.boxes_cxcywh.to(dtype)
            images = replace(batch.images, pixels=batch.images.pixels.to(dtype))
            yield (
                index,
                replace(batch, images=images, targets=replace(batch.targets, boxes_cxcywh=boxes)),
            )


def _autocast(dtype: torch.dtype | None) -> AbstractContextManager[object]:
    return nullcontext() if dtype is None else torch.autocast("cpu", dtype=dtype)


def _find_diverged(path: Path) -> Path:
    places = [path.parent if path.name == INFO_FILE else path, RunDirectory(path).diverged]
    for place in reversed(places):
        found = find_checkpoint(place)
        if found is not None:
            return found
    raise CheckpointError(
        str(path), "no checkpoint of a diverged step: expected DIR/diverged of a run, or the run"
    )


def _open_session(checkpoint: Path, info: dict[str, Any]) -> TrainingSession:
    source = str(checkpoint)
    recipe = _simplify(recipe_from_dict(info.get("recipe") or {}, source))
    data = load_training_data(recipe, overfit=_count(info, "overfit", source))
    check_same_annotations(checkpoint, data)
    repeats = _count(info, "repeats", source) or 1
    plan = build_epoch_plan(recipe.train, len(data.train), repeats=repeats)
    directory = RunDirectory(checkpoint.parent)
    accelerator = create_accelerator(device="cpu")
    session = TrainingSession(recipe, data, accelerator, directory, plan=plan)
    check_same_assigner(info, session.criterion, source)
    load_weights(session.model, read_weights(checkpoint, averaged=False), source)
    return session


def _simplify(recipe: Recipe) -> Recipe:
    """Turn off what changes how a result is computed, but not the result."""
    data = recipe.data.model_copy(update={"num_workers": 0})
    train = recipe.train.model_copy(update={"checkpoint_encoder": False})
    return recipe.model_copy(update={"data": data, "train": train})


def _count(info: dict[str, Any], key: str, source: str) -> int | None:
    value = info.get(key)
    if value is not None and (type(value) is not int or value < 1):
        raise CheckpointError(source, f"its {INFO_FILE} has no valid {key!r}")
    return value
