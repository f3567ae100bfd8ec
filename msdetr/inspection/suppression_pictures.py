"""Pictures of what a suppressor does to the queries of an image's targets."""

from __future__ import annotations

from pathlib import Path

import torch

from msdetr.boxes import cxcywh_to_xyxy
from msdetr.drawing.captions import Box
from msdetr.drawing.suppression import DrawnSuppression, draw_suppression
from msdetr.inspection.pictures import open_photo
from msdetr.inspection.suppression import Suppression
from msdetr.inspection.trace import TracedImage, TraceInfo


def save_suppression_picture(image: TracedImage, info: TraceInfo, folder: Path) -> Path | None:
    """Draw the queries of an image's targets as ``<image id>_suppression.png``.

    Returns:
        The file; None where the model has no suppressor, or the image no target.
    """
    if not image.suppressions:
        return None
    boxes = _in_pixels(image.one_to_many.boxes_cxcywh[-1], image.original_hw)
    photo, _ = open_photo(image)
    sheet = draw_suppression(
        photo,
        _in_pixels(image.boxes_cxcywh, image.original_hw),
        [info.category_names[label] for label in image.labels.tolist()],
        [_drawn(each, boxes) for each in image.suppressions],
    )
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{image.image_id:012d}_suppression.png"
    sheet.save(path, compress_level=4)
    return path


def _drawn(found: Suppression, boxes: list[Box]) -> DrawnSuppression:
    return DrawnSuppression(
        box_xyxy_px=boxes[found.query],
        target=found.target,
        query=found.query,
        before=found.before,
        after=found.after,
        is_kept=found.outcome == "kept",
        by=found.by,
        by_xyxy_px=boxes[found.by] if found.by >= 0 else None,
        weight=found.weight,
        is_wrong=found.outcome in ("neighbour", "background"),
    )


def _in_pixels(boxes_cxcywh: torch.Tensor, hw: tuple[int, int]) -> list[Box]:
    height, width = hw
    corners = cxcywh_to_xyxy(boxes_cxcywh) * torch.tensor([width, height, width, height])
    return [(x0, y0, x1, y1) for x0, y0, x1, y1 in corners.tolist()]
