"""Pictures side by side, each below its title."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw

from msdetr.drawing.boxes import caption_font
from msdetr.drawing.palette import BLACK, WHITE

_GAP_PX = 12


def beside(panels: Sequence[tuple[str, Image.Image]]) -> Image.Image:
    """Put pictures of one size beside each other, each with a title above it."""
    font = caption_font(panels[0][1].size)
    heading = 2 * int(font.size) if hasattr(font, "size") else 28
    width = sum(panel.width for _, panel in panels) + _GAP_PX * (len(panels) - 1)
    sheet = Image.new("RGB", (width, panels[0][1].height + heading), WHITE)
    draw, x = ImageDraw.Draw(sheet), 0
    for title, panel in panels:
        draw.text((x + 4, heading / 2), title, fill=BLACK, font=font, anchor="lm")
        sheet.paste(panel, (x, heading))
        x += panel.width + _GAP_PX
    return sheet
