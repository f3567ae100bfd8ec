"""Queries of targets before and after a suppressor, with lines to what suppresses them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from msdetr.drawing.boxes import DrawnBox, canvas_scale, draw_boxes, line_width
from msdetr.drawing.captions import Box
from msdetr.drawing.palette import COLORS, Rgb, Style
from msdetr.drawing.panels import beside

_WRONG: Rgb = (220, 0, 0)
_MIN_WEIGHT = 0.1


@dataclass(frozen=True)
class DrawnSuppression:
    """A query of a target to draw.

    Attributes:
        box_xyxy_px: Its box in pixels of the image.
        target: Index of the target.
        query: Its number.
        before: Probability of the target's class before the suppressor.
        after: The same after it.
        is_kept: Whether the suppressor keeps it.
        by: Number of the query that it attends to most; -1 if it sees none.
        by_xyxy_px: Box of that one; None likewise.
        weight: Attention weight of that one, in 0..1.
        is_wrong: Whether that one belongs to another target or to none.
    """

    box_xyxy_px: Box
    target: int
    query: int
    before: float
    after: float
    is_kept: bool
    by: int
    by_xyxy_px: Box | None
    weight: float
    is_wrong: bool


def draw_suppression(
    image: Image.Image,
    targets_xyxy_px: Sequence[Box],
    names: Sequence[str],
    queries: Sequence[DrawnSuppression],
) -> Image.Image:
    """Draw targets and their queries, left before the suppressor, right after it.

    Every target and its queries have one color; targets are solid, queries dashed, suppressed
    ones dotted. On the right a line leads from every suppressed query to the one that it attends
    to most, the thicker the larger the weight, and red where that one is of another object.

    Args:
        image: RGB image.
        targets_xyxy_px: Boxes of the targets in pixels of the image.
        names: Class of each target.
        queries: Of all targets.
    """
    titles = [
        DrawnBox(box, f"{index} {names[index]}", Style(_color(index)))
        for index, box in enumerate(targets_xyxy_px)
    ]
    before = [DrawnBox(q.box_xyxy_px, f"{q.query}: {q.before:.2f}", _style(q)) for q in queries]
    after = [DrawnBox(q.box_xyxy_px, _fate(q), _style(q)) for q in queries]
    lined = draw_boxes(image, [*titles, *after])
    _draw_lines(lined, queries, canvas_scale(image.size))
    num_kept = sum(query.is_kept for query in queries)
    return beside(
        [
            (
                "before the suppressor: queries with their probabilities",
                draw_boxes(image, [*titles, *before]),
            ),
            (f"after it: {num_kept} kept, {len(queries) - num_kept} suppressed (dotted)", lined),
        ]
    )


def _fate(query: DrawnSuppression) -> str:
    by = "" if query.is_kept or query.by < 0 else f" by {query.by}"
    return f"{query.query}: {query.after:.2f}{by}"


def _draw_lines(canvas: Image.Image, queries: Sequence[DrawnSuppression], scale: float) -> None:
    draw, width = ImageDraw.Draw(canvas), line_width(canvas.size)
    for query in queries:
        if query.is_kept or query.by_xyxy_px is None or query.weight < _MIN_WEIGHT:
            continue
        start, end = (_centre(box, scale) for box in (query.box_xyxy_px, query.by_xyxy_px))
        color = _WRONG if query.is_wrong else _color(query.target)
        draw.line([start, end], fill=color, width=max(1, round(2 * width * query.weight)))
        x, y = end
        draw.ellipse([x - width, y - width, x + width, y + width], fill=color)


def _centre(box: Box, scale: float) -> tuple[float, float]:
    x0, y0, x1, y1 = box
    return scale * (x0 + x1) / 2, scale * (y0 + y1) / 2


def _style(query: DrawnSuppression) -> Style:
    return Style(_color(query.target), "dashed" if query.is_kept else "dotted")


def _color(target: int) -> Rgb:
    return COLORS[target % len(COLORS)]
