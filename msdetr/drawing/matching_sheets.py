"""Sheets of an image's assignments: its targets, its decoder layers, its scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from msdetr.drawing.captions import Box
from msdetr.drawing.matching import (
    BACKGROUND,
    FAINT,
    INK,
    TEXT_PX,
    PixelSize,
    ShownTarget,
    draw_legend,
    draw_overview,
    draw_region,
    draw_target,
    fit_text,
    font,
    region_of,
)

_GAP_PX = 14
_HEADER_PX = 46
_PANEL_PX = (372, 260)
_STRIP_PX = (236, 176)
_STRIP_LABEL_PX = 150
_MOST_COLUMNS = 4
_LEGEND_PX = 720


@dataclass(frozen=True)
class SheetHeading:
    """Two lines at the top of a sheet.

    Attributes:
        title: Image and layer.
        subtitle: Settings, and what is left out.
    """

    title: str
    subtitle: str


def target_sheet(
    image: Image.Image,
    heading: SheetHeading,
    overview: Sequence[tuple[Box, str]],
    targets: Sequence[ShownTarget],
) -> Image.Image:
    """Draw the image beside a panel for every target, in one decoder layer.

    Args:
        image: RGB image.
        heading: Of the sheet.
        overview: Captioned boxes of all targets, in pixels of the image.
        targets: Those to show in panels of their own.
    """
    panels = [draw_target(image, target, _PANEL_PX) for target in targets]
    tallest = max((panel.height for panel in panels), default=_PANEL_PX[1])
    whole = draw_overview(image, overview, (_PANEL_PX[0], tallest))
    cells = [whole, *panels]
    num_columns = min(_MOST_COLUMNS, max(2, len(cells)))
    heights = [
        max(cell.height for cell in cells[first : first + num_columns])
        for first in range(0, len(cells), num_columns)
    ]
    width = num_columns * (_PANEL_PX[0] + _GAP_PX) + _GAP_PX
    width = max(width, _LEGEND_PX)
    sheet = _start_sheet(heading, (width, sum(heights) + _GAP_PX * len(heights)))
    for number, cell in enumerate(cells):
        row, column = divmod(number, num_columns)
        top = _HEADER_PX + 28 + sum(heights[:row]) + _GAP_PX * row
        sheet.paste(cell, (_GAP_PX + column * (_PANEL_PX[0] + _GAP_PX), top))
    return sheet


def layer_sheet(
    image: Image.Image,
    heading: SheetHeading,
    rows: Sequence[Sequence[ShownTarget]],
    layers: Sequence[int],
) -> Image.Image:
    """Draw targets row by row, every decoder layer in a column, always the same part of the image.

    Args:
        image: RGB image.
        heading: Of the sheet.
        rows: Per target, the same target in every layer.
        layers: The layers' numbers.
    """
    width, height = _STRIP_PX
    line = TEXT_PX + 4
    row_height = height + line + _GAP_PX
    total = (
        max(_LEGEND_PX, _STRIP_LABEL_PX + len(layers) * (width + 6) + _GAP_PX),
        line + len(rows) * row_height,
    )
    sheet = _start_sheet(heading, total)
    draw = ImageDraw.Draw(sheet)
    top = _HEADER_PX + 28
    for column, layer in enumerate(layers):
        x = _STRIP_LABEL_PX + column * (width + 6)
        draw.text((x, top), f"layer {layer}", fill=INK, font=font())
    for number, row in enumerate(rows):
        y = top + line + number * row_height
        first = row[0]
        for i, text in enumerate((first.title, first.size_bin)):
            shown = fit_text(draw, text, _STRIP_LABEL_PX - _GAP_PX - 8)
            draw.text((_GAP_PX, y + i * line), shown, fill=FAINT if i else INK, font=font())
        region = region_of(row, _STRIP_PX, image.size)
        for column, target in enumerate(row):
            x = _STRIP_LABEL_PX + column * (width + 6)
            sheet.paste(draw_region(image, target, region, _STRIP_PX, tags=False), (x, y))
            draw.text((x, y + height + 1), _count(target), fill=FAINT, font=font())
    return sheet


def _start_sheet(heading: SheetHeading, content: PixelSize) -> Image.Image:
    width, height = content
    sheet = Image.new("RGB", (width, height + _HEADER_PX + 28 + _GAP_PX), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    title, subtitle = (
        fit_text(draw, text, width - 2 * _GAP_PX) for text in (heading.title, heading.subtitle)
    )
    draw.text((_GAP_PX, 6), title, fill=INK, font=font(TEXT_PX + 3))
    draw.text((_GAP_PX, 26), subtitle, fill=FAINT, font=font())
    sheet.paste(draw_legend(width - 2 * _GAP_PX), (_GAP_PX, _HEADER_PX))
    return sheet


def _count(target: ShownTarget) -> str:
    positives = sum(query.is_positive for query in target.queries)
    picks = [f"1:1 is rank {query.rank}" for query in target.queries if query.is_pick]
    noun = "positive" if positives == 1 else "positives"
    return ", ".join([f"{positives} {noun}", *picks])
