"""An estimate of the memory and time of a training run before it is started."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from msdetr.api.datasets import load_training_data
from msdetr.api.training.session import TrainingSession
from msdetr.build import build_accelerator, build_noise
from msdetr.data.batching import Batch, count_cells, grow_to_cells
from msdetr.data.coco_index import CocoIndex
from msdetr.data.transforms import resized_hw
from msdetr.engine.allocations import AllocationGauge
from msdetr.engine.environment import MemoryGauge, available_memory_mib, resident_memory_mib
from msdetr.engine.run_directory import RunDirectory
from msdetr.engine.task import MicroBatchPlace
from msdetr.errors import counted
from msdetr.recipe import AugmentationRecipe, Recipe
from msdetr.structures import ImageBatch, Targets

_SHARE_WARNED = 0.9
# Sides of the two measured passes, relative to the largest batch: 1/16 and 1/8 of its area.
_MEASURED_SIDES = (0.25, 0.35355339)
_MOMENTS_OF_ADAM = 2


@dataclass(frozen=True)
class DryRunReport:
    """What a training run will need on each process, as far as two small passes tell.

    Attributes:
        device: Where the passes ran.
        largest_hw: Height and width of the largest padded batch, in pixels.
        images_per_forward: Images of that batch.
        memory_mib: Memory of its forward and backward pass, with weights, gradients and
            optimizer, in MiB.
        available_mib: Memory that was free for it, in MiB.
        seconds_per_step: Time of an optimizer step of such batches, in seconds.
        steps_per_epoch: Optimizer steps of an epoch.
        num_epochs: Epochs of the recipe.
    """

    device: str
    largest_hw: tuple[int, int]
    images_per_forward: int
    memory_mib: float
    available_mib: float
    seconds_per_step: float
    steps_per_epoch: int
    num_epochs: int

    @property
    def fits(self) -> bool:
        """Whether the largest batch leaves a tenth of the memory free."""
        return self.memory_mib <= _SHARE_WARNED * self.available_mib

    def lines(self) -> list[str]:
        """Return the estimate in plain words."""
        height, width = self.largest_hw
        hours = self.seconds_per_step * self.steps_per_epoch * self.num_epochs / 3600
        lines = [
            f"largest padded batch: {self.images_per_forward} x {height} x {width} px "
            f"(images x height x width) on {self.device}",
            f"memory, extrapolated: {self.memory_mib:.0f} MiB of {self.available_mib:.0f} MiB free",
            f"time, extrapolated: at most {self.seconds_per_step:.2f} s per step, "
            f"{counted(self.steps_per_epoch, 'step')} per epoch, "
            f"{counted(self.num_epochs, 'epoch')}: {hours:.1f} h",
        ]
        if not self.fits:
            lines.append(
                "warning: this is likely to run out of memory; lower train.images_per_forward or "
                "data.augmentation.max_size, or set train.checkpoint_encoder: true"
            )
        return lines


def dry_run(recipe: Recipe, *, device: str = "auto") -> DryRunReport:
    """Build everything, run two small passes, and extrapolate to the largest padded batch.

    Nothing is written. Memory and time grow linearly with the number of pixels, apart from a
    constant part, to which all query groups belong; both are measured at 1/16 and 1/8 of the
    largest batch's pixels, or on larger images where the queries need more cells.

    Args:
        recipe: What to train and how.
        device: "auto", "cpu", "cuda" or "cuda:N".

    Raises:
        InvalidInputError: Recipe or data cannot be used.
    """
    data = load_training_data(recipe)
    accelerator = build_accelerator(recipe.train, device=device)
    session = TrainingSession(recipe, data, accelerator, RunDirectory(Path()))
    model = accelerator.prepare(session.model)
    model.train()
    available = available_memory_mib(accelerator.device)
    largest = largest_batch_hw(
        data.train.index, recipe.data.augmentation, recipe.train.images_per_forward
    )
    # Of a GPU the passes tell everything; on a CPU, what they add to the process.
    base_mib = 0.0 if accelerator.device.type == "cuda" else resident_memory_mib()
    passes = [
        _measure(session, model, _batch_of(recipe, session, hw))
        for hw in _measured_sizes(recipe, session, largest)
    ]
    pixels = recipe.train.images_per_forward * largest[0] * largest[1]
    optimizer_mib = (
        _MOMENTS_OF_ADAM
        * sum(p.numel() * p.element_size() for p in session.model.parameters() if p.requires_grad)
        / 2**20
    )
    per_process = session.plan.micro_batches_per_process(accelerator.num_processes)
    return DryRunReport(
        device=str(accelerator.device),
        largest_hw=largest,
        images_per_forward=recipe.train.images_per_forward,
        memory_mib=base_mib
        + _extrapolate([(p.pixels, p.memory_mib) for p in passes], pixels)
        + optimizer_mib,
        available_mib=available,
        seconds_per_step=per_process
        * _extrapolate([(p.pixels, p.seconds) for p in passes], pixels),
        steps_per_epoch=session.plan.num_steps,
        num_epochs=recipe.train.epochs,
    )


def largest_batch_hw(
    index: CocoIndex, augmentation: AugmentationRecipe, num_images: int
) -> tuple[int, int]:
    """Return the height and width that no padded training batch exceeds, in pixels.

    Args:
        index: The training images.
        augmentation: How they are resized.
        num_images: Images of a batch; one image alone is not padded.
    """
    size, limit = max(augmentation.train_sizes), augmentation.max_size
    shapes = np.unique(index.image_hw, axis=0).tolist()
    if augmentation.crop_probability > 0:
        low, high = augmentation.crop_min, augmentation.crop_max
        shapes += [[low, high], [high, low]]
    resized = [resized_hw((height, width), size, limit) for height, width in shapes]
    if num_images == 1:
        return max(resized, key=lambda hw: hw[0] * hw[1])
    return max(hw[0] for hw in resized), max(hw[1] for hw in resized)


@dataclass(frozen=True)
class _Pass:
    pixels: int
    memory_mib: float
    seconds: float


def _measured_sizes(
    recipe: Recipe, session: TrainingSession, largest: tuple[int, int]
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the sizes of both passes, in pixels; both have the cells that all queries need."""
    hybrid, strides = recipe.model.query_groups.hybrid, session.model.strides
    num_queries = recipe.model.num_queries
    needed = num_queries + (0 if hybrid is None else hybrid.queries)
    # The hybrid group shrinks where there are too few cells, in the largest batch as well.
    needed = min(needed, count_cells(grow_to_cells(largest, strides, num_queries), strides))
    small, larger = (
        grow_to_cells(_part_of(largest, side), strides, max(num_queries, needed))
        for side in _MEASURED_SIDES
    )
    if larger[0] * larger[1] <= small[0] * small[1]:
        larger = _part_of(small, _MEASURED_SIDES[1] / _MEASURED_SIDES[0])
    return small, larger


def _part_of(hw: tuple[int, int], side: float) -> tuple[int, int]:
    return max(64, round(hw[0] * side)), max(64, round(hw[1] * side))


def _batch_of(recipe: Recipe, session: TrainingSession, hw: tuple[int, int]) -> Batch:
    num_images = recipe.train.images_per_forward
    generator = torch.Generator().manual_seed(0)
    index = session.data.train.index
    noise = build_noise(recipe, session.data.label_space.labels)
    num_targets = max(1, round(index.num_targets / max(1, len(index))))
    if noise is not None:
        # Denoising queries are made of targets: the number that yields the most queries.
        max_targets = max(1, int(np.diff(index.first_target).max(initial=0)))
        num_targets = max(
            range(1, max_targets + 1), key=lambda count: (noise.count_slots(count), count)
        )
    boxes = torch.rand(num_targets, 4, generator=generator) * 0.5 + 0.25
    labels = torch.zeros(num_targets, dtype=torch.int64)
    targets = Targets.from_lists([boxes] * num_images, [labels] * num_images)
    return Batch(
        ImageBatch(
            torch.randn(num_images, 3, *hw, generator=generator),
            torch.zeros(num_images, *hw, dtype=torch.bool),
        ),
        targets,
        torch.tensor([hw] * num_images),
        noised=None if noise is None else noise(targets, [0] * num_images),
    )


def _measure(session: TrainingSession, model: torch.nn.Module, batch: Batch) -> _Pass:
    """Measure memory in one pass and time in another, which the first has warmed up for."""
    device = next(model.parameters()).device
    model.zero_grad(set_to_none=True)
    # Resident memory depends on what was freed before; allocations do not.
    with MemoryGauge(device) if device.type == "cuda" else AllocationGauge() as gauge:
        _pass(session, model, batch.to(device))
    started = time.perf_counter()
    _pass(session, model, batch.to(device))
    seconds = time.perf_counter() - started
    images = batch.images.pixels
    return _Pass(images.shape[0] * images.shape[2] * images.shape[3], gauge.peak_mib, seconds)


def _pass(session: TrainingSession, model: torch.nn.Module, batch: Batch) -> None:
    place = MicroBatchPlace(seed=0, epoch=0, step=0, index=0)
    loss = session.task.loss(model, batch, num_targets=1.0, place=place)
    total: Tensor = loss.total
    torch.autograd.backward(total)
    # Reading the value waits for the device.
    total.item()


def _extrapolate(points: list[tuple[int, float]], pixels: int) -> float:
    (x0, y0), (x1, y1) = points
    slope = max(0.0, (y1 - y0) / max(1, x1 - x0))
    return y1 + slope * (pixels - x1)
