"""Boxes with captions on images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from msdetr.drawing.captions import Box, place_captions
from msdetr.drawing.palette import BLACK, Style, text_color

# Smaller pictures are enlarged, so that captions do not cover them; larger ones are reduced.
SHORT_SIDE_PX = 480
ENLARGED_LONG_SIDE_PX = 1600
LONG_SIDE_PX = 8192

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True)
class DrawnBox:
    """A box to draw.

    Attributes:
        box_xyxy_px: Corners in pixels of the image; what lies outside is cut off.
        caption: Text beside the box; empty for none.
        style: Color and pattern of the line.
    """

    box_xyxy_px: Box
    caption: str
    style: Style


def draw_boxes(image: Image.Image, boxes: Sequence[DrawnBox]) -> Image.Image:
    """Draw boxes on a copy of an image.

    Args:
        image: RGB image of any size.
        boxes: The first lies on top and chooses the place of its caption first.

    Returns:
        RGB picture, ``canvas_scale`` times the size of the image.
    """
    scale = canvas_scale(image.size)
    canvas = scale_image(image, scale)
    draw = ImageDraw.Draw(canvas)
    line, font = line_width(canvas.size), caption_font(canvas.size)
    places = [_to_canvas(box.box_xyxy_px, scale, canvas.size) for box in boxes]
    sizes = [_caption_size(draw, box.caption, font) for box in boxes]
    captions = place_captions(places, sizes, canvas.size)
    for box, place in reversed(list(zip(boxes, places, strict=True))):
        draw_outline(draw, place, box.style, line)
    for box, caption in reversed(list(zip(boxes, captions, strict=True))):
        if box.caption:
            draw_caption(draw, caption, box, font)
    return canvas


def canvas_scale(size: tuple[int, int]) -> float:
    """Return the size of a picture relative to its image of ``size`` (width, height).

    Small images are enlarged by a whole number, very large ones are reduced.
    """
    short, long = min(size), max(size)
    if long > LONG_SIDE_PX:
        return LONG_SIDE_PX / long
    wanted = math.ceil(SHORT_SIDE_PX / short)
    return float(max(1, min(wanted, ENLARGED_LONG_SIDE_PX // long)))


def scale_image(image: Image.Image, scale: float) -> Image.Image:
    """Return an RGB copy of an image, ``scale`` times as large and at least one pixel."""
    size = tuple(max(1, round(side * scale)) for side in image.size)
    return image.convert("RGB").resize((size[0], size[1]), Image.Resampling.BICUBIC)


def line_width(size: tuple[int, int]) -> int:
    """Return the width of outlines on a canvas of ``size`` (width, height), in pixels."""
    return max(2, round(min(size) / 250))


def caption_font(size: tuple[int, int]) -> Font:
    """Return the font of captions on a canvas of ``size`` (width, height)."""
    return ImageFont.load_default(max(13, round(min(size) / 40)))


def draw_outline(draw: ImageDraw.ImageDraw, box: Box, style: Style, width: int) -> None:
    """Draw a box's outline with a rim, so that it shows on any background.

    Args:
        draw: Where.
        box: Corners in pixels of the canvas.
        style: Colors and pattern; gaps have the color of the rim.
        width: Of the colored line, in pixels.
    """
    x0, y0, x1, y1 = (round(value) for value in box)
    draw.rectangle((x0 - 1, y0 - 1, x1 + 1, y1 + 1), outline=style.rim, width=width + 2)
    if style.dash == "solid":
        draw.rectangle((x0, y0, x1, y1), outline=style.color, width=width)
        return
    on, off = {"dashed": (6 * width, 3 * width), "dotted": (2 * width, 2 * width)}[style.dash]
    inner = width - 1
    for start in range(x0, x1 + 1, on + off):
        stop = min(start + on - 1, x1)
        draw.rectangle((start, y0, stop, min(y0 + inner, y1)), fill=style.color)
        draw.rectangle((start, max(y1 - inner, y0), stop, y1), fill=style.color)
    for start in range(y0, y1 + 1, on + off):
        stop = min(start + on - 1, y1)
        draw.rectangle((x0, start, min(x0 + inner, x1), stop), fill=style.color)
        draw.rectangle((max(x1 - inner, x0), start, x1, stop), fill=style.color)


def draw_caption(draw: ImageDraw.ImageDraw, place: Box, box: DrawnBox, font: Font) -> None:
    """Write a box's caption on its color.

    Args:
        draw: Where.
        place: Corners of the caption in pixels of the canvas.
        box: Its caption and color.
        font: Of the text.
    """
    color = box.style.color
    x0, y0, x1, y1 = (round(value) for value in place)
    draw.rectangle((x0, y0, x1, y1), fill=color, outline=BLACK)
    centre = ((x0 + x1) / 2, (y0 + y1) / 2)
    draw.text(centre, box.caption, fill=text_color(color), font=font, anchor="mm")


def _caption_size(draw: ImageDraw.ImageDraw, caption: str, font: Font) -> tuple[float, float]:
    if not caption:
        return (0.0, 0.0)
    # One height for all captions, whatever their letters.
    _, top, _, bottom = draw.textbbox((0, 0), "Áj", font=font)
    return (draw.textlength(caption, font=font) + 8, bottom - top + 4)


def _to_canvas(box: Box, scale: float, size: tuple[int, int]) -> Box:
    width, height = size
    x0, y0, x1, y1 = (value * scale for value in box)
    left, top = min(max(x0, 0), width - 1), min(max(y0, 0), height - 1)
    return (left, top, min(max(x1, left), width - 1), min(max(y1, top), height - 1))
