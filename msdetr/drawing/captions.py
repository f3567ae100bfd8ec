"""Where captions go so that they can be read: inside the picture, and not on one another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

Box = tuple[float, float, float, float]
Size = tuple[float, float]


def place_captions(boxes: Sequence[Box], sizes: Sequence[Size], canvas: Size) -> list[Box]:
    """Find a place for the caption of every box; earlier boxes choose first.

    A caption goes above its box, below it or beside an edge of it, at the left or right, where it
    covers the least of the captions placed before it.

    Args:
        boxes: Corner boxes in pixels of the canvas.
        sizes: Width and height of each box's caption, in pixels; (0, 0) for none.
        canvas: Width and height of the canvas, in pixels.

    Returns:
        Corner boxes of the captions, shifted into the canvas where they fit into it at all.
    """
    placed: list[Box] = []
    for box, size in zip(boxes, sizes, strict=True):
        candidates = [_shift_inside(place, canvas) for place in _candidates(box, size)]
        # min keeps the first of equals: the candidates come in the order of preference.
        placed.append(min(candidates, key=lambda c: sum(_overlap(c, other) for other in placed)))
    return placed


def _candidates(box: Box, size: Size) -> Iterator[Box]:
    x0, y0, x1, y1 = box
    width, height = size
    for top in (y0 - height, y1, y0, y1 - height, (y0 + y1 - height) / 2):
        for left in (x0, x1 - width):
            yield (left, top, left + width, top + height)


def _shift_inside(place: Box, canvas: Size) -> Box:
    x0, y0, x1, y1 = place
    dx = max(min(0.0, canvas[0] - x1), -x0)
    dy = max(min(0.0, canvas[1] - y1), -y0)
    return (x0 + dx, y0 + dy, x1 + dx, y1 + dy)


def _overlap(first: Box, second: Box) -> float:
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    return max(0.0, width) * max(0.0, height)
