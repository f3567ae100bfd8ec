"""Pictures of denoising queries: the noised boxes of an image around its targets."""

from __future__ import annotations

from pathlib import Path

import torch

from msdetr.boxes import cxcywh_to_xyxy
from msdetr.drawing.captions import Box
from msdetr.drawing.denoising import NoisedBox, draw_noise
from msdetr.inspection.pictures import open_photo
from msdetr.inspection.trace import TracedImage, TraceInfo

MAX_SLOTS_PER_TARGET = 4
"""Positive and negative slots of every target that are drawn; more would hide each other."""


def save_noise_picture(image: TracedImage, info: TraceInfo, folder: Path) -> Path | None:
    """Draw the noised boxes of an image as ``<image id>_denoising.png``.

    Returns:
        The file; None where the image has no denoising queries.
    """
    noise = image.groups.noise
    if noise is None or not noise.target:
        return None
    boxes = _in_pixels(torch.tensor(noise.boxes_cxcywh), image.original_hw)
    drawn: dict[tuple[int, bool], int] = {}
    slots = []
    columns = zip(boxes, noise.target, noise.positive, noise.flipped, strict=True)
    for box, target, positive, flipped in columns:
        kind = (target, positive)
        drawn[kind] = drawn.get(kind, 0) + 1
        if drawn[kind] <= MAX_SLOTS_PER_TARGET:
            slots.append(NoisedBox(box, target, positive, flipped))
    photo, _ = open_photo(image)
    names = [info.category_names[label] for label in image.labels.tolist()]
    sheet = draw_noise(photo, _in_pixels(image.boxes_cxcywh, image.original_hw), names, slots)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{image.image_id:012d}_denoising.png"
    sheet.save(path, compress_level=4)
    return path


def _in_pixels(boxes_cxcywh: torch.Tensor, hw: tuple[int, int]) -> list[Box]:
    height, width = hw
    corners = cxcywh_to_xyxy(boxes_cxcywh) * torch.tensor([width, height, width, height])
    return [(x0, y0, x1, y1) for x0, y0, x1, y1 in corners.tolist()]
