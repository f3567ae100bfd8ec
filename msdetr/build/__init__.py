"""The composition root: recipes in, objects out. Nothing else knows both sides."""

from __future__ import annotations

from msdetr.build.data import (
    build_collator,
    build_detection_settings,
    build_eval_dataset,
    build_eval_transform,
    build_label_space,
    build_loader,
    build_noise,
    build_train_collator,
    build_train_dataset,
    build_train_transform,
    limit_split,
    locate_files,
    outside_names,
    read_split,
)
from msdetr.build.model import (
    build_initial_model,
    build_model,
    groups_with_one_to_many,
    load_pretrained_backbone,
)
from msdetr.build.supervision import build_assigner, build_criterion
from msdetr.build.training import (
    build_accelerator,
    build_epoch_plan,
    build_optimizer,
    build_parameter_groups,
    build_repeating_plan,
    build_schedule,
    build_trainer_settings,
    build_weight_average,
)

__all__ = [
    "build_accelerator",
    "build_assigner",
    "build_collator",
    "build_criterion",
    "build_detection_settings",
    "build_epoch_plan",
    "build_eval_dataset",
    "build_eval_transform",
    "build_initial_model",
    "build_label_space",
    "build_loader",
    "build_model",
    "build_noise",
    "build_optimizer",
    "build_parameter_groups",
    "build_repeating_plan",
    "build_schedule",
    "build_train_collator",
    "build_train_dataset",
    "build_train_transform",
    "build_trainer_settings",
    "build_weight_average",
    "groups_with_one_to_many",
    "limit_split",
    "load_pretrained_backbone",
    "locate_files",
    "outside_names",
    "read_split",
]
