"""Recipe -> training: processes, plan of the epochs, optimizer, schedule and settings."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from accelerate import Accelerator

from msdetr.data.sampling import EpochPlan
from msdetr.engine.ema import WeightAverage
from msdetr.engine.optimizer import ParameterGroup, build_adamw
from msdetr.engine.processes import create_accelerator
from msdetr.engine.schedule import Schedule
from msdetr.engine.settings import TrainerSettings
from msdetr.model import DetectionModel
from msdetr.model.parameter_groups import parameter_group
from msdetr.recipe import Recipe, TrainRecipe


def build_accelerator(
    recipe: TrainRecipe, *, device: str, tracking_dir: Path | None = None
) -> Accelerator:
    """Set up device, processes and trackers in the recipe's precision.

    Args:
        recipe: Names the precision.
        device: "auto", "cpu", "cuda" or "cuda:N".
        tracking_dir: Where the trackers' files go; None for no tracker.

    Raises:
        UsageError: The device or its precision is not available.
    """
    return create_accelerator(device=device, precision=recipe.precision, tracking_dir=tracking_dir)


def build_epoch_plan(recipe: TrainRecipe, num_images: int, *, repeats: int = 1) -> EpochPlan:
    """Say which images of an epoch go together.

    Args:
        recipe: Sizes of the batches, and the seed.
        num_images: Images of the training set.
        repeats: Times that an epoch goes through them.

    Raises:
        UsageError: A number is out of range.
    """
    return EpochPlan(
        num_images, recipe.batch_size, recipe.images_per_forward, recipe.seed, repeats=repeats
    )


def build_repeating_plan(recipe: TrainRecipe, num_images: int, num_steps: int) -> EpochPlan:
    """Repeat a few images until all epochs together have about ``num_steps`` optimizer steps."""
    repeats = math.ceil(num_steps * recipe.batch_size / (num_images * recipe.epochs))
    return build_epoch_plan(recipe, num_images, repeats=repeats)


def build_optimizer(model: DetectionModel, recipe: TrainRecipe) -> torch.optim.AdamW:
    """Make AdamW with the recipe's learning rates."""
    groups = build_parameter_groups(model, recipe)
    return build_adamw(model, groups, weight_decay=recipe.weight_decay)


def build_weight_average(model: DetectionModel, recipe: TrainRecipe) -> WeightAverage | None:
    """Make what averages the weights; None if the recipe keeps no average."""
    return None if recipe.ema is None else WeightAverage(model, recipe.ema.decay)


def build_trainer_settings(recipe: Recipe, plan: EpochPlan) -> TrainerSettings:
    """Collect the numbers of the training loop."""
    train = recipe.train
    return TrainerSettings(
        epochs=train.epochs,
        steps_per_epoch=plan.num_steps,
        micro_batches_per_step=plan.micro_batches_per_step,
        seed=train.seed,
        max_seconds=train.max_seconds,
        clip_norm=train.clip_norm,
        log_every_steps=train.log_every_steps,
        evaluate_every_epochs=recipe.evaluation.every_epochs,
        keep_every_epochs=train.keep_every_epochs,
        compile_model=train.compile,
    )


def build_parameter_groups(model: DetectionModel, recipe: TrainRecipe) -> dict[str, ParameterGroup]:
    """Divide the trainable parameters by learning rate; the base group comes first."""
    rates = {
        "base": recipe.lr,
        "backbone": recipe.backbone_lr,
        "linear_projection": recipe.lr * recipe.linear_projection_lr_factor,
    }
    trainable = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    return {
        group: ParameterGroup([p for name, p in trainable if parameter_group(name) == group], lr)
        for group, lr in rates.items()
    }


def build_schedule(recipe: TrainRecipe, steps_per_epoch: int) -> Schedule:
    """Make the learning-rate schedule of a run."""
    return Schedule(
        kind=recipe.schedule,
        drop_epochs=recipe.lr_drop_epochs,
        drop_factor=recipe.lr_drop_factor,
        warmup_steps=recipe.warmup_steps,
        total_steps=recipe.epochs * steps_per_epoch,
    )
