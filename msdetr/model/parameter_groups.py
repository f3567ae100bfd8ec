"""Which learning rate a parameter of the model takes."""

from __future__ import annotations

from typing import Literal

GroupName = Literal["backbone", "linear_projection", "base"]


def parameter_group(name: str) -> GroupName:
    """Name the optimizer group of a parameter of ``DetectionModel``.

    Args:
        name: Name as in ``DetectionModel.named_parameters()``.

    Source: Zhu et al., Deformable DETR, ICLR 2021, section 5.1 (implementation details).
    """
    if name.startswith("backbone."):
        return "backbone"
    if "sampling_offsets" in name or "reference_points" in name:
        return "linear_projection"
    return "base"
