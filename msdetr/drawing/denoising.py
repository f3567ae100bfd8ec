"""Targets of one image and the noised copies of them that denoising queries start from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from msdetr.drawing.boxes import DrawnBox, draw_boxes
from msdetr.drawing.captions import Box
from msdetr.drawing.palette import COLORS, Dash, Style
from msdetr.drawing.panels import beside


@dataclass(frozen=True)
class NoisedBox:
    """A denoising slot to draw.

    Attributes:
        box_xyxy_px: Its box in pixels of the image.
        target: Index of the target that it was made of.
        positive: Whether it is to find the target; others are to find nothing.
        flipped: Whether its class is another than the target's.
    """

    box_xyxy_px: Box
    target: int
    positive: bool
    flipped: bool


def draw_noise(
    image: Image.Image,
    targets_xyxy_px: Sequence[Box],
    names: Sequence[str],
    slots: Sequence[NoisedBox],
) -> Image.Image:
    """Draw slots around their targets: positive ones left, negative ones, if any, right.

    Every target and its slots have one color; targets are solid, slots dashed, slots with
    another class dotted.

    Args:
        image: RGB image.
        targets_xyxy_px: Boxes of the targets in pixels of the image.
        names: Class of each target.
        slots: To draw; a few groups of them, or boxes hide each other.
    """
    panels = [("positive slots: to find their target", [s for s in slots if s.positive])]
    negative = [slot for slot in slots if not slot.positive]
    if negative:
        panels.append(("negative slots: to find nothing", negative))
    return beside(
        [(title, _draw_panel(image, targets_xyxy_px, names, chosen)) for title, chosen in panels]
    )


def _draw_panel(
    image: Image.Image, targets: Sequence[Box], names: Sequence[str], slots: Sequence[NoisedBox]
) -> Image.Image:
    boxes = [
        DrawnBox(box, f"{index} {names[index]}", Style(_color(index)))
        for index, box in enumerate(targets)
    ]
    boxes += [
        DrawnBox(slot.box_xyxy_px, "", Style(_color(slot.target), _dash(slot))) for slot in slots
    ]
    return draw_boxes(image, boxes)


def _color(target: int) -> tuple[int, int, int]:
    return COLORS[target % len(COLORS)]


def _dash(slot: NoisedBox) -> Dash:
    return "dotted" if slot.flipped else "dashed"
