"""Targets with the queries that both assignments gave them, and the rejected ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import TypeAlias

from PIL import Image, ImageDraw, ImageFont

from msdetr.drawing.boxes import draw_outline
from msdetr.drawing.captions import Box, place_captions
from msdetr.drawing.palette import WHITE, Rgb, Style, text_color

PixelSize: TypeAlias = tuple[int, int]

BACKGROUND: Rgb = (255, 255, 255)
INK: Rgb = (30, 30, 30)
FAINT: Rgb = (110, 110, 110)
_OUTSIDE: Rgb = (225, 225, 225)
TEXT_PX = 13
_LINE_PX = 17
_MARGIN_PX = 8
_LARGEST_WIDTH_PX = 5
_PALENESS = 0.35


class Role(Enum):
    """Role of a box; each differs from the others in lightness or in pattern.

    The page matching.html draws them alike (``style.css``). White rims show dark lines on dark
    pictures, and leave them as they are on white paper.
    """

    TARGET = Style((17, 17, 17), rim=WHITE)
    POSITIVE = Style((0, 114, 178), rim=WHITE)
    PICK = Style((213, 94, 0), "dashed", WHITE)
    REJECTED = Style((75, 85, 99), "dotted", WHITE)


@dataclass(frozen=True)
class ShownQuery:
    """A query beside a target.

    Attributes:
        box_xyxy_px: Its box, in pixels of the image.
        query: Its number.
        rank: Its place by score for the target, from 1.
        score: Score for the target.
        iou: With the target.
        probability: Of the target's class.
        is_positive: Whether it is a one-to-many positive of the target.
        is_pick: Whether it is the target's one-to-one pick.
        reason: Why it is not a positive, briefly; empty for positives.
        pick_box_xyxy_px: For picks, the box of the one-to-one branch.
        strength: The score as a share of its range, 0 to 1; the score itself by default.
    """

    box_xyxy_px: Box
    query: int
    rank: int
    score: float
    iou: float
    probability: float
    is_positive: bool
    is_pick: bool
    reason: str
    pick_box_xyxy_px: Box | None = None
    strength: float | None = None

    @property
    def width(self) -> float:
        """How wide its line is, 0 to 1."""
        return self.score if self.strength is None else self.strength

    @property
    def note(self) -> str:
        """Outcome of the query, for the list beside the picture."""
        roles = [
            name for name, holds in (("1:n", self.is_positive), ("1:1", self.is_pick)) if holds
        ]
        return ", ".join([" and ".join(roles)] * bool(roles) + [self.reason] * bool(self.reason))


@dataclass(frozen=True)
class ShownTarget:
    """A target with the queries to show beside it.

    Attributes:
        box_xyxy_px: In pixels of the image.
        title: Number and class.
        size_bin: "small", "medium" or "large".
        note: What the assigner says of it; may be empty.
        queries: By rank.
    """

    box_xyxy_px: Box
    title: str
    size_bin: str
    note: str
    queries: tuple[ShownQuery, ...]


@cache
def font(size: int = TEXT_PX) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Load the font of all texts, once: loading takes longer than using it."""
    return ImageFont.load_default(size)


def draw_target(image: Image.Image, target: ShownTarget, size: PixelSize) -> Image.Image:
    """Draw a target's surroundings above the list of its queries.

    Args:
        image: RGB image.
        target: What to show.
        size: Width and height of the surroundings, in pixels.
    """
    width, height = size
    rows = len(target.queries) + 1
    panel = Image.new("RGB", (width, height + 2 * _LINE_PX + rows * _LINE_PX + 6), BACKGROUND)
    draw = ImageDraw.Draw(panel)
    draw.text((2, 0), fit_text(draw, target.title, width - 4), fill=INK, font=font(TEXT_PX + 1))
    subtitle = ", ".join(filter(None, (target.size_bin, target.note)))
    draw.text((2, _LINE_PX), subtitle, fill=FAINT, font=font())
    region = region_of([target], size, image.size)
    panel.paste(draw_region(image, target, region, size), (0, 2 * _LINE_PX))
    _list_queries(draw, target.queries, 2 * _LINE_PX + height + 4)
    return panel


def draw_region(
    image: Image.Image, target: ShownTarget, region: Box, size: PixelSize, *, tags: bool = True
) -> Image.Image:
    """Draw a part of the image with a target's boxes.

    Args:
        image: RGB image.
        target: What to show.
        region: Part of the image, in its pixels; may reach outside.
        size: Width and height of the result, in pixels.
        tags: Number the boxes by rank.
    """
    canvas = _paler(_cut(image, region, size))
    draw = ImageDraw.Draw(canvas)
    scale = size[0] / (region[2] - region[0])

    def to_canvas(box: Box) -> Box:
        x0, y0, x1, y1 = ((value - region[i % 2]) * scale for i, value in enumerate(box))
        return _clamp(x0, size[0]), _clamp(y0, size[1]), _clamp(x1, size[0]), _clamp(y1, size[1])

    # Those that matter most come last, on top; wide lines below thin ones.
    for query in sorted(target.queries, key=lambda q: (q.is_positive, -q.score)):
        if query.is_positive:
            width = max(1, round(_LARGEST_WIDTH_PX * query.width))
            draw_outline(draw, to_canvas(query.box_xyxy_px), Role.POSITIVE.value, width)
        elif not query.is_pick:
            _draw_dashes(draw, to_canvas(query.box_xyxy_px), Role.REJECTED)
    draw_outline(draw, to_canvas(target.box_xyxy_px), Role.TARGET.value, 2)
    for query in target.queries:
        if query.is_pick:
            _draw_dashes(draw, to_canvas(query.pick_box_xyxy_px or query.box_xyxy_px), Role.PICK)
    if tags:
        _draw_tags(draw, [(to_canvas(q.box_xyxy_px), q) for q in target.queries], size)
    return canvas


def draw_overview(
    image: Image.Image, boxes: Sequence[tuple[Box, str]], size: PixelSize
) -> Image.Image:
    """Draw the whole image with captioned targets, as large as fits.

    Args:
        image: RGB image.
        boxes: Corner boxes in pixels of the image, with captions that begin with a number and
            a space. Captions that would lie on earlier ones are left out.
        size: Width and height of the result, in pixels.
    """
    scale = min(size[0] / image.width, size[1] / image.height)
    shape = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    canvas = _paler(image.convert("RGB").resize(shape, Image.Resampling.BICUBIC))
    draw = ImageDraw.Draw(canvas)
    places = [(x0 * scale, y0 * scale, x1 * scale, y1 * scale) for (x0, y0, x1, y1), _ in boxes]
    for place in places:
        draw_outline(draw, place, Role.TARGET.value, 2)
    captions = [caption for _, caption in boxes]
    shown = _place_tags(draw, places, captions, canvas.size)
    if len(shown) < len(boxes):
        # Numbers alone are shorter; the panels and tables have the names.
        captions = [caption.split(" ")[0] for caption in captions]
        shown = _place_tags(draw, places, captions, canvas.size)
    for index, box in shown.items():
        _draw_tag(draw, box, captions[index], Role.TARGET.value.color)
    return canvas


def draw_legend(width: int) -> Image.Image:
    """Draw one line that explains every kind of box, ``width`` pixels wide."""
    legend = Image.new("RGB", (width, _LINE_PX + 4), BACKGROUND)
    draw = ImageDraw.Draw(legend)
    x = 2
    for role, text in _LEGEND.items():
        _draw_swatch(draw, (x, 2), role)
        draw.text((x + 34, 1), text, fill=INK, font=font())
        x += 34 + round(draw.textlength(text, font())) + 22
    return legend


def region_of(targets: Sequence[ShownTarget], size: PixelSize, image_size: PixelSize) -> Box:
    """Choose the part of an image that shows a target and its queries, in several layers.

    Args:
        targets: The same target in every layer to show.
        size: Width and height of the picture, in pixels: the part has its proportions.
        image_size: Width and height of the image.

    Returns:
        Corner box in pixels of the image, inside of it where it fits.
    """
    x0, y0, x1, y1 = targets[0].box_xyxy_px
    centre = ((x0 + x1) / 2, (y0 + y1) / 2)
    half = [max((x1 - x0) * 0.7, 16.0), max((y1 - y0) * 0.7, 16.0)]
    reach = 1.6 * max(x1 - x0, y1 - y0, 16.0)
    for query in (q for target in targets for q in target.queries if q.is_positive or q.is_pick):
        for i, value in enumerate(query.box_xyxy_px):
            half[i % 2] = max(half[i % 2], min(abs(value - centre[i % 2]) * 1.08, reach))
    # Never smaller than it takes to show the whole image.
    whole = max(image_size[0] / size[0], image_size[1] / size[1])
    scale = min(2 * max(half[0] / size[0], half[1] / size[1]), whole)
    width, height = scale * size[0], scale * size[1]
    left = _shift(centre[0] - width / 2, width, image_size[0])
    top = _shift(centre[1] - height / 2, height, image_size[1])
    return left, top, left + width, top + height


def fit_text(draw: ImageDraw.ImageDraw, text: str, width: float) -> str:
    """Shorten a text until it is at most ``width`` pixels wide."""
    if draw.textlength(text, font(TEXT_PX + 1)) <= width:
        return text
    while text and draw.textlength(text + "...", font(TEXT_PX + 1)) > width:
        text = text[:-1]
    return text + "..."


_LEGEND = {
    Role.TARGET: "target",
    Role.POSITIVE: "one-to-many positive (line width: score; number: rank)",
    Role.PICK: "one-to-one pick",
    Role.REJECTED: "not assigned",
}
_SCORE_CHARACTERS = 5
_LIST_COLUMNS_PX = (36, 66, 112, 152, 192, 230)


def _list_queries(draw: ImageDraw.ImageDraw, queries: Sequence[ShownQuery], top: int) -> None:
    for x, text in zip(
        _LIST_COLUMNS_PX, ("rank", "query", "score", "IoU", "prob.", ""), strict=True
    ):
        draw.text((x, top), text, fill=FAINT, font=font(TEXT_PX - 1))
    for row, query in enumerate(queries, start=1):
        y = top + row * _LINE_PX
        if query.is_positive or not query.is_pick:
            _draw_swatch(draw, (2, y), Role.POSITIVE if query.is_positive else Role.REJECTED)
        if query.is_pick:
            _draw_swatch(draw, (2, y), Role.PICK, inset=4 if query.is_positive else 0)
        score = f"{query.score:.2f}" if query.strength is None else compact(query.score)
        numbers = (f"{value:.2f}" for value in (query.iou, query.probability))
        texts = (str(query.rank), str(query.query), score, *numbers, query.note)
        color = INK if query.is_positive or query.is_pick else FAINT
        for x, text in zip(_LIST_COLUMNS_PX, texts, strict=True):
            draw.text((x, y), text, fill=color, font=font())


def compact(value: float) -> str:
    """Write a score of any size in the room of its column."""
    if value == 0 or abs(value) >= 0.01:
        text = f"{value:.2g}"
        return text if len(text) <= _SCORE_CHARACTERS else f"{value:.1g}"
    digits, _, exponent = f"{value:.0e}".partition("e")
    return f"{digits}e{int(exponent)}"


def _draw_swatch(
    draw: ImageDraw.ImageDraw, place: tuple[int, int], role: Role, *, inset: int = 0
) -> None:
    x, y = place[0] + inset, place[1] + 2 + inset
    box = (x, y, x + 27 - 2 * inset, y + 11 - 2 * inset)
    if role.value.dash == "solid":
        draw_outline(draw, box, role.value, 2)
    else:
        _draw_dashes(draw, box, role)


def _draw_dashes(draw: ImageDraw.ImageDraw, box: Box, role: Role) -> None:
    """Outline a box with dashes; what lies below shows between them."""
    on, off, width = {Role.PICK: (10, 8, 3), Role.REJECTED: (3, 4, 1)}[role]
    x0, y0, x1, y1 = (round(value) for value in box)
    dashes = [
        *((x, y, min(x + on, x1), y) for y in (y0, y1) for x in range(x0, x1 + 1, on + off)),
        *((x, y, x, min(y + on, y1)) for x in (x0, x1) for y in range(y0, y1 + 1, on + off)),
    ]
    low, high = (width - 1) // 2, width // 2
    # The rims first: they must not cut into neighbouring dashes.
    for margin, color in ((1, role.value.rim), (0, role.value.color)):
        for left, top, right, bottom in dashes:
            place = (left - low - margin, top - low - margin, right + high, bottom + high)
            draw.rectangle((*place[:2], place[2] + margin, place[3] + margin), fill=color)


def _draw_tags(
    draw: ImageDraw.ImageDraw, queries: Sequence[tuple[Box, ShownQuery]], size: PixelSize
) -> None:
    """Write numbers beside the boxes; positives and picks choose their places first."""
    ordered = sorted(queries, key=lambda entry: not (entry[1].is_positive or entry[1].is_pick))
    texts = [str(query.rank) for _, query in ordered]
    shown = _place_tags(draw, [box for box, _ in ordered], texts, size)
    for index, place in shown.items():
        query = ordered[index][1]
        role = Role.PICK if query.is_pick else Role.REJECTED
        role = Role.POSITIVE if query.is_positive else role
        _draw_tag(draw, place, texts[index], role.value.color)


def _place_tags(
    draw: ImageDraw.ImageDraw, boxes: Sequence[Box], texts: Sequence[str], size: PixelSize
) -> dict[int, Box]:
    """Find places of the tags that do not overlap earlier ones, by position."""
    sizes = [(draw.textlength(text, font(TEXT_PX - 1)) + 5, TEXT_PX + 2) for text in texts]
    shown: dict[int, Box] = {}
    for index, place in enumerate(place_captions(boxes, sizes, size)):
        if not any(_touch(place, other) for other in shown.values()):
            shown[index] = place
    return shown


def _touch(first: Box, second: Box) -> bool:
    return all(first[i] < second[i + 2] and second[i] < first[i + 2] for i in (0, 1))


def _draw_tag(draw: ImageDraw.ImageDraw, place: Box, text: str, color: Rgb) -> None:
    x0, y0, x1, y1 = (round(value) for value in place)
    centre = ((x0 + x1) / 2, (y0 + y1) / 2)
    draw.rectangle((x0, y0, x1, y1), fill=color, outline=WHITE)
    draw.text(centre, text, fill=text_color(color), font=font(TEXT_PX - 1), anchor="mm")


def _paler(photo: Image.Image) -> Image.Image:
    """Lighten a picture: dark colors are for the lines."""
    return Image.blend(photo, Image.new("RGB", photo.size, WHITE), _PALENESS)


def _cut(image: Image.Image, region: Box, size: PixelSize) -> Image.Image:
    scale = size[0] / (region[2] - region[0])
    canvas = Image.new("RGB", size, _OUTSIDE)
    inside = (
        max(0.0, region[0]),
        max(0.0, region[1]),
        min(float(image.width), region[2]),
        min(float(image.height), region[3]),
    )
    if inside[0] >= inside[2] or inside[1] >= inside[3]:
        return canvas
    shape = [max(1, round((inside[i + 2] - inside[i]) * scale)) for i in (0, 1)]
    part = image.resize((shape[0], shape[1]), Image.Resampling.BICUBIC, box=inside)
    corner = [round((inside[i] - region[i]) * scale) for i in (0, 1)]
    canvas.paste(part, (corner[0], corner[1]))
    return canvas


def _clamp(value: float, side: int) -> float:
    return min(max(value, -_MARGIN_PX), side + _MARGIN_PX)


def _shift(start: float, length: float, side: int) -> float:
    if length >= side:
        return (side - length) / 2
    return min(max(start, 0.0), side - length)
