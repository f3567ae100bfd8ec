"""Recipe -> training: parameter groups and schedule."""

from __future__ import annotations

from msdetr.engine.optimizer import ParameterGroup
from msdetr.engine.schedule import Schedule
from msdetr.model import (
    DetectionModel,
)
from msdetr.model.parameter_groups import parameter_group
from msdetr.recipe import (
    TrainRecipe,
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
