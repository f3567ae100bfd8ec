"""How detections are made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class DetectionSettings:
    """How detections are made of predictions.

    Attributes:
        limit: Detections per image.
        nms_threshold: IoU of the class-wise suppression; None for none.
        batch_size: Images per forward pass.
        precision: Arithmetic of the layers.
        category_id_of_label: [K] category id of every label.
        has_suppressor: Whether a suppressor makes the detections, after the decoder layers.
    """

    limit: int
    nms_threshold: float | None
    batch_size: int
    precision: Literal["fp32", "bf16", "fp16"]
    category_id_of_label: Sequence[int]
    has_suppressor: bool = False
