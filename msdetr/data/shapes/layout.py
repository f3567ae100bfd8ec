"""Where the shapes of a scene lie: sizes, overlaps and occlusions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from msdetr.data.shapes.draws import Draws
from msdetr.data.shapes.outlines import (
    SHAPE_CLASSES,
    SUBPIXELS,
    Outline,
    coverage,
    draw_outline,
)

SMALL_AREA_PX = 32 * 32
OVERLAP_IOU = 0.2

_EMPTY_PERCENT = 5
_MAX_OBJECTS = 12
_SMALL_PERCENT = 14
# Two objects meet in a pair, and some pairs find no room.
_PAIR_PERCENT = 11
_MIN_SIDE_PX = 14
_SMALL_RADIUS_PX = (9, 15)
_LARGE_RADIUS_PX = (17, 48)
_MAX_STRAY_IOU = 0.1
_MAX_PAIR_IOU = 0.45
_MIN_VISIBLE = 0.6
_OUTLINES_TRIED = 10
_PLACES_TRIED = 4


@dataclass(frozen=True)
class Placed:
    """A shape at its place.

    Attributes:
        outline: The shape.
        top_left: Row and column of its tight box, in cells of the finer grid.
    """

    outline: Outline
    top_left: tuple[int, int]

    @property
    def box_xywh_px(self) -> tuple[float, float, float, float]:
        """Left, top, width and height of the tight box in pixels."""
        top, left = self.top_left
        return (left / SUBPIXELS, top / SUBPIXELS, *self.outline.size_px)

    @property
    def is_small(self) -> bool:
        """Whether COCO calls the box small."""
        return is_small(self.outline)

    def pixels(self) -> tuple[tuple[slice, slice], NDArray[np.int32]]:
        """Return the window of the image that the shape touches, and its coverage there."""
        top, left = self.top_left
        covered = coverage(self.outline, (top % SUBPIXELS, left % SUBPIXELS))
        row, column = top // SUBPIXELS, left // SUBPIXELS
        height, width = covered.shape
        return (slice(row, row + height), slice(column, column + width)), covered


def is_small(outline: Outline) -> bool:
    """Whether the tight box has less than 32 x 32 pixels."""
    width, height = outline.size_px
    return width * height < SMALL_AREA_PX


def place_objects(draws: Draws, hw: tuple[int, int]) -> list[Placed]:
    """Draw the shapes of an image; later ones cover earlier ones.

    Every shape lies wholly inside the image and about 60% of it or more stays visible.

    Args:
        draws: Source of randomness.
        hw: Height and width of the image in pixels.
    """
    if draws.percent(_EMPTY_PERCENT):
        return []
    wanted = draws.integer(1, _MAX_OBJECTS)
    scene = _Scene(hw)
    for _ in range(wanted):
        small = draws.percent(_SMALL_PERCENT)
        if not (draws.percent(_PAIR_PERCENT) and scene.add_beside(draws, small)):
            scene.add(draws, small)
    return scene.placed


class _Scene:
    """Objects placed so far, and which of them shows at every pixel."""

    def __init__(self, hw: tuple[int, int]) -> None:
        self.hw = hw
        self.placed: list[Placed] = []
        self._paired: set[int] = set()
        self._top = np.full(hw, -1, dtype=np.int64)
        self._full_counts: list[int] = []

    def add(self, draws: Draws, small: bool) -> bool:
        """Place a shape that meets no other one much; False if there is no room."""
        for outline in self._outlines(draws, small):
            for _ in range(_PLACES_TRIED):
                candidate = Placed(outline, self._anywhere(draws, outline))
                overlaps = [iou(candidate, other) for other in self.placed]
                if max(overlaps, default=0.0) <= _MAX_STRAY_IOU and self._accept(candidate):
                    return True
        return False

    def add_beside(self, draws: Draws, small: bool) -> bool:
        """Place a shape that overlaps one of its size; False if there is no such pair."""
        free = [i for i, other in enumerate(self.placed) if i not in self._paired]
        partners = [i for i in free if self.placed[i].is_small == small]
        if not partners:
            return False
        partner = draws.choose(partners)
        for outline in self._outlines(draws, small):
            for _ in range(_PLACES_TRIED):
                candidate = Placed(outline, self._near(draws, outline, self.placed[partner]))
                if self._makes_pair(candidate, partner) and self._accept(candidate):
                    self._paired |= {partner, len(self.placed) - 1}
                    return True
        return False

    def _makes_pair(self, candidate: Placed, partner: int) -> bool:
        overlaps = [iou(candidate, other) for other in self.placed]
        is_pair = OVERLAP_IOU < overlaps.pop(partner) <= _MAX_PAIR_IOU
        return is_pair and max(overlaps, default=0.0) <= _MAX_STRAY_IOU

    def _outlines(self, draws: Draws, small: bool) -> Iterator[Outline]:
        low, high = _SMALL_RADIUS_PX if small else _LARGE_RADIUS_PX
        high = min(high, min(self.hw) * 3 // 10)
        label = draws.integer(0, len(SHAPE_CLASSES) - 1)
        for _ in range(_OUTLINES_TRIED):
            # The lower of two draws: large shapes are rarer, because they leave little room.
            radius = min(draws.integer(low, high), high if small else draws.integer(low, high))
            outline = draw_outline(draws, label, radius)
            if is_small(outline) == small and min(outline.size_px) >= _MIN_SIDE_PX:
                yield outline

    def _limits(self, outline: Outline) -> tuple[int, int]:
        (height, width), (h, w) = self.hw, outline.cells.shape
        return height * SUBPIXELS - h, width * SUBPIXELS - w

    def _anywhere(self, draws: Draws, outline: Outline) -> tuple[int, int]:
        last_top, last_left = self._limits(outline)
        return draws.integer(0, last_top), draws.integer(0, last_left)

    def _near(self, draws: Draws, outline: Outline, partner: Placed) -> tuple[int, int]:
        places = []
        sides = zip(
            partner.top_left,
            partner.outline.cells.shape,
            outline.cells.shape,
            self._limits(outline),
            strict=True,
        )
        for start, partner_side, side, last in sides:
            shift = (partner_side - side) // 2 + draws.integer(-partner_side, partner_side) * 3 // 4
            places.append(min(max(start + shift, 0), last))
        return places[0], places[1]

    def _accept(self, candidate: Placed) -> bool:
        window, covered = candidate.pixels()
        shown = covered * 2 > SUBPIXELS**2
        top = self._top.copy()
        top[window][shown] = len(self.placed)
        counts = np.bincount(top[top >= 0], minlength=len(self.placed) + 1)
        full = [*self._full_counts, int(shown.sum())]
        if (counts < _MIN_VISIBLE * np.array(full)).any():
            return False
        self._top, self._full_counts = top, full
        self.placed.append(candidate)
        return True


def iou(first: Placed, second: Placed) -> float:
    """Return the overlap of two tight boxes."""
    x, y, w, h = first.box_xywh_px
    x2, y2, w2, h2 = second.box_xywh_px
    overlap_w = min(x + w, x2 + w2) - max(x, x2)
    overlap_h = min(y + h, y2 + h2) - max(y, y2)
    intersection = max(overlap_w, 0.0) * max(overlap_h, 0.0)
    return intersection / (w * h + w2 * h2 - intersection)
