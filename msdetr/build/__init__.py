"""The composition root: recipes in, objects out. Nothing else knows both sides."""

from __future__ import annotations

from msdetr.build.data import (
    build_collator,
    build_eval_transform,
    build_label_space,
    build_train_collator,
    build_train_transform,
    limit_split,
    locate_files,
    read_split,
)
from msdetr.build.model import (
    build_model,
    groups_with_one_to_many,
    load_pretrained_backbone,
)
from msdetr.build.supervision import (
    build_assigner,
    build_criterion,
)
from msdetr.build.training import (
    build_parameter_groups,
    build_schedule,
)

__all__ = [
    "build_assigner",
    "build_collator",
    "build_criterion",
    "build_eval_transform",
    "build_label_space",
    "build_model",
    "build_parameter_groups",
    "build_schedule",
    "build_train_collator",
    "build_train_transform",
    "groups_with_one_to_many",
    "limit_split",
    "load_pretrained_backbone",
    "locate_files",
    "read_split",
]
