"""Targets of one image that only one of two detectors finds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, ImageDraw

from msdetr.drawing.boxes import DrawnBox, caption_font, draw_boxes, draw_outline, line_width
from msdetr.drawing.palette import BLACK, COLORS, WHITE, Style

WON = Style(COLORS[4])
LOST = Style(COLORS[0])
_LEGEND = (
    ("target won", WON),
    ("its detection", Style(WON.color, "dashed")),
    ("target lost", LOST),
    ("its detection", Style(LOST.color, "dashed")),
)


def draw_won_and_lost(
    image: Image.Image,
    won_boxes: ArrayLike,
    lost_boxes: ArrayLike,
    *,
    won_detections: ArrayLike = (),
    lost_detections: ArrayLike = (),
    won_captions: Sequence[str] | None = None,
    lost_captions: Sequence[str] | None = None,
) -> Image.Image:
    """Draw the targets that were won and lost, solid, and what found them, dashed.

    Args:
        image: RGB image that the boxes refer to.
        won_boxes: [W, 4] targets that the first detector alone finds; corners in pixels.
        lost_boxes: [L, 4] targets that the second detector alone finds.
        won_detections: Boxes of the first detector that found them; none by default.
        lost_detections: Boxes of the second detector; none by default.
        won_captions: [W] texts beside the won targets; "won" by default.
        lost_captions: [L] texts beside the lost targets; "lost" by default.

    Returns:
        The picture, see ``draw_boxes``, with a legend below it.
    """
    won, lost = _rows(won_boxes), _rows(lost_boxes)
    picture = draw_boxes(
        image,
        [
            *_drawn(won, won_captions or ["won"] * len(won), WON),
            *_drawn(lost, lost_captions or ["lost"] * len(lost), LOST),
            *_drawn(_rows(won_detections), None, _LEGEND[1][1]),
            *_drawn(_rows(lost_detections), None, _LEGEND[3][1]),
        ],
    )
    return _with_legend(picture)


def _rows(boxes: ArrayLike) -> list[list[float]]:
    rows: list[list[float]] = np.asarray(boxes, dtype=np.float64).reshape(-1, 4).tolist()
    return rows


def _drawn(rows: list[list[float]], captions: Sequence[str] | None, style: Style) -> list[DrawnBox]:
    texts = [""] * len(rows) if captions is None else captions
    return [
        DrawnBox((x0, y0, x1, y1), text, style)
        for (x0, y0, x1, y1), text in zip(rows, texts, strict=True)
    ]


def _with_legend(picture: Image.Image) -> Image.Image:
    font = caption_font(picture.size)
    measure = ImageDraw.Draw(picture)
    line = round(measure.textbbox((0, 0), "Áj", font=font)[3]) + 10
    entry = round(max(measure.textlength(text, font=font) for text, _ in _LEGEND)) + 3 * line
    per_row = max(1, picture.width // entry)
    num_rows = -(-len(_LEGEND) // per_row)
    sheet = Image.new("RGB", (picture.width, picture.height + num_rows * line + 8), WHITE)
    sheet.paste(picture, (0, 0))
    draw, width = ImageDraw.Draw(sheet), line_width(picture.size)
    for number, (text, style) in enumerate(_LEGEND):
        row, column = divmod(number, per_row)
        x, y = 8 + column * entry, picture.height + 6 + row * line
        draw_outline(draw, (x, y, x + 1.6 * line, y + line - 8), style, width)
        draw.text((x + 2 * line, y), text, fill=BLACK, font=font)
    return sheet
