"""Scores of targets and queries as a matrix of colors, with both assignments marked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from msdetr.drawing.boxes import draw_outline
from msdetr.drawing.matching import BACKGROUND, FAINT, INK, TEXT_PX, Role, fit_text, font
from msdetr.drawing.palette import WHITE, Rgb, Style, text_color

_CELL_PX = 22
_LABEL_PX = 170
_GAP_PX = 14
_HEADER_PX = 76
_QUERY_LABEL_PX = 34
_PICK = Style(Role.PICK.value.color, rim=WHITE)
# From white to dark blue: lightness alone tells the scores apart.
_STOPS: tuple[Rgb, ...] = ((255, 255, 255), (198, 219, 239), (107, 174, 214), (8, 81, 156))


@dataclass(frozen=True)
class ScoreMatrix:
    """Scores in one decoder layer.

    Attributes:
        title: Above the matrix.
        queries: Q' queries, the columns.
        scores: Per target, Q' scores in 0..1.
        positives: Per target, Q' flags of one-to-many pairs.
        picks: Per target, Q' flags of one-to-one pairs.
    """

    title: str
    queries: Sequence[int]
    scores: Sequence[Sequence[float]]
    positives: Sequence[Sequence[bool]]
    picks: Sequence[Sequence[bool]]


def score_sheet(
    title: str,
    subtitle: str,
    targets: Sequence[str],
    matrices: Sequence[ScoreMatrix],
    *,
    ends: tuple[str, str] = ("score 0", "1"),
) -> Image.Image:
    """Draw the score matrices of an image, one per decoder layer.

    Args:
        title: Of the sheet.
        subtitle: Second line.
        targets: Names of the rows.
        matrices: From the first layer to the last.
        ends: What the ends of the color scale are called.
    """
    columns = max(len(matrix.queries) for matrix in matrices)
    height = len(targets) * _CELL_PX + _QUERY_LABEL_PX + TEXT_PX + 8 + _GAP_PX
    width = max(_LABEL_PX + columns * _CELL_PX + _GAP_PX, 700)
    sheet = Image.new("RGB", (width, _HEADER_PX + len(matrices) * height), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    draw.text((_GAP_PX, 6), fit_text(draw, title, width - 30), fill=INK, font=font(TEXT_PX + 3))
    draw.text((_GAP_PX, 26), fit_text(draw, subtitle, width - 30), fill=FAINT, font=font())
    _draw_key(draw, (_GAP_PX, 48), ends)
    for number, matrix in enumerate(matrices):
        _draw_matrix(sheet, matrix, targets, _HEADER_PX + number * height)
    return sheet


def _draw_matrix(sheet: Image.Image, matrix: ScoreMatrix, targets: Sequence[str], top: int) -> None:
    draw = ImageDraw.Draw(sheet)
    draw.text((_GAP_PX, top), matrix.title, fill=INK, font=font(TEXT_PX + 1))
    first_row = top + TEXT_PX + 8 + _QUERY_LABEL_PX
    for column, query in enumerate(matrix.queries):
        label = Image.new("RGB", (_QUERY_LABEL_PX, _CELL_PX), BACKGROUND)
        ImageDraw.Draw(label).text(
            (2, _CELL_PX / 2), str(query), fill=FAINT, font=font(TEXT_PX - 2), anchor="lm"
        )
        place = (_LABEL_PX + column * _CELL_PX, first_row - _QUERY_LABEL_PX)
        sheet.paste(label.rotate(90, expand=True), place)
    for row, name in enumerate(targets):
        y = first_row + row * _CELL_PX
        text = fit_text(draw, name, _LABEL_PX - _GAP_PX - 8)
        draw.text((_GAP_PX, y + _CELL_PX / 2), text, fill=INK, font=font(), anchor="lm")
        for column, score in enumerate(matrix.scores[row]):
            cell = (_LABEL_PX + column * _CELL_PX, y)
            marks = (matrix.positives[row][column], matrix.picks[row][column])
            _draw_cell(draw, cell, score, marks)


def _draw_cell(
    draw: ImageDraw.ImageDraw, place: tuple[int, int], score: float, marks: tuple[bool, bool]
) -> None:
    x, y = place
    right, bottom = x + _CELL_PX - 2, y + _CELL_PX - 2
    is_positive, is_pick = marks
    fill = _color(score)
    draw.rectangle((x, y, right, bottom), fill=fill, outline=(225, 225, 225))
    if is_pick:
        draw_outline(draw, (x + 1, y + 1, right - 1, bottom - 1), _PICK, 3)
    if is_positive:
        centre, radius = ((x + right) / 2, (y + bottom) / 2), 4
        box = (centre[0] - radius, centre[1] - radius, centre[0] + radius, centre[1] + radius)
        draw.ellipse(box, fill=text_color(fill))


def _draw_key(draw: ImageDraw.ImageDraw, place: tuple[int, int], ends: tuple[str, str]) -> None:
    x, y = place
    draw.text((x, y + 3), ends[0], fill=INK, font=font())
    x += max(52, round(draw.textlength(ends[0], font())) + 6)
    for step in range(11):
        draw.rectangle((x, y, x + 13, y + _CELL_PX - 2), fill=_color(step / 10), outline=FAINT)
        x += 13
    draw.text((x + 6, y + 3), ends[1], fill=INK, font=font())
    for text, marks in (
        ("one-to-many positive", (True, False)),
        ("one-to-one pick", (False, True)),
        ("both", (True, True)),
    ):
        x += 40
        _draw_cell(draw, (x, y), 0.35, marks)
        draw.text((x + _CELL_PX + 6, y + 3), text, fill=INK, font=font())
        x += _CELL_PX + round(draw.textlength(text, font()))


def _color(score: float) -> Rgb:
    place = min(max(score, 0.0), 1.0) * (len(_STOPS) - 1)
    index = min(int(place), len(_STOPS) - 2)
    share = place - index
    red, green, blue = (
        round(low + (high - low) * share)
        for low, high in zip(_STOPS[index], _STOPS[index + 1], strict=True)
    )
    return red, green, blue
