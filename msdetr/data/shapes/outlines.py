"""Outlines of the shape classes, drawn on a finer grid.

Only single additions, multiplications, divisions and comparisons, which IEEE arithmetic rounds
alike everywhere: no drawing library, so that masks do not depend on its version.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from msdetr.data.shapes.draws import Draws

SUBPIXELS = 4
"""Cells per pixel and axis of the finer grid."""

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]


def direction(degrees: int) -> tuple[float, float]:
    """Return cosine and sine, rounded to 1/1024 so that no math library shows."""
    angle = math.radians(degrees)
    return round(math.cos(angle) * 1024) / 1024, round(math.sin(angle) * 1024) / 1024


def _circle(u: Floats, v: Floats) -> Mask:
    inside: Mask = u * u + v * v <= 1
    return inside


def _square(u: Floats, v: Floats) -> Mask:
    inside: Mask = np.maximum(np.abs(u), np.abs(v)) <= 0.9
    return inside


def _triangle(u: Floats, v: Floats) -> Mask:
    inside: Mask = _count_half_planes(u, v, 3, 0.6) == 3
    return inside


def _star(u: Floats, v: Floats) -> Mask:
    # A pentagram is where at most one of the five lines through its tips is crossed.
    inside: Mask = _count_half_planes(u, v, 5, 0.37) >= 4
    return inside


def _cross(u: Floats, v: Floats) -> Mask:
    near, far = np.minimum(np.abs(u), np.abs(v)), np.maximum(np.abs(u), np.abs(v))
    inside: Mask = (near <= 0.3) & (far <= 1)
    return inside


def _ring(u: Floats, v: Floats) -> Mask:
    square = u * u + v * v
    inside: Mask = (square <= 1) & (square >= 0.3)
    return inside


def _crescent(u: Floats, v: Floats) -> Mask:
    shifted = u - 0.6
    inside: Mask = (u * u + v * v <= 1) & (shifted * shifted + v * v >= 0.72)
    return inside


def _count_half_planes(u: Floats, v: Floats, num_lines: int, distance: float) -> NDArray[np.int8]:
    count = np.zeros(u.shape, dtype=np.int8)
    for line in range(num_lines):
        cosine, sine = direction(line * 360 // num_lines)
        count += u * cosine + v * sine <= distance
    return count


@dataclass(frozen=True)
class ShapeClass:
    """A class of the data set.

    Attributes:
        name: Its name.
        contains: Whether points (u, v) of a disc-like region of radius about 1 belong to it.
        max_rotation: Largest rotation either way, in degrees, that keeps it apart from the
            other classes.
    """

    name: str
    contains: Callable[[Floats, Floats], Mask]
    max_rotation: int


SHAPE_CLASSES = (
    ShapeClass("circle", _circle, 90),
    ShapeClass("square", _square, 15),
    ShapeClass("triangle", _triangle, 45),
    ShapeClass("star", _star, 36),
    ShapeClass("cross", _cross, 45),
    ShapeClass("ring", _ring, 90),
    ShapeClass("crescent", _crescent, 90),
)


@dataclass(frozen=True)
class Outline:
    """A drawn shape, cut out at its tight box on the finer grid.

    Attributes:
        label: Index in ``SHAPE_CLASSES``.
        cells: [h, w] bool on the finer grid; every border row and column holds a True.
    """

    label: int
    cells: Mask

    @property
    def size_px(self) -> tuple[float, float]:
        """Width and height of the tight box in pixels."""
        height, width = self.cells.shape
        return width / SUBPIXELS, height / SUBPIXELS


def draw_outline(draws: Draws, label: int, radius_px: int) -> Outline:
    """Draw a shape with a random rotation and a stretch of up to a quarter.

    Args:
        draws: Source of randomness.
        label: Index in ``SHAPE_CLASSES``.
        radius_px: Half of the shape's extent before stretching, in pixels.
    """
    shape = SHAPE_CLASSES[label]
    cosine, sine = direction(draws.integer(-shape.max_rotation, shape.max_rotation))
    stretch = draws.integer(-12, 12) / 100
    # Triangles and stars reach 1.35 when stretched; the grid is cut to the shape afterwards.
    reach = radius_px * SUBPIXELS * 7 // 5
    along = (np.arange(2 * reach) - reach + 0.5) / (radius_px * SUBPIXELS)
    x, y = along[None, :].astype(np.float32), along[:, None].astype(np.float32)
    u = (x * cosine + y * sine) / (1 + stretch)
    v = (y * cosine - x * sine) / (1 - stretch)
    cells = shape.contains(u.astype(np.float32, copy=False), v.astype(np.float32, copy=False))
    rows, columns = np.flatnonzero(cells.any(axis=1)), np.flatnonzero(cells.any(axis=0))
    return Outline(label, cells[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])


def coverage(outline: Outline, offset: tuple[int, int]) -> NDArray[np.int32]:
    """Return how much of each pixel the shape covers, in 0..SUBPIXELS**2.

    Args:
        outline: The shape.
        offset: Row and column of the shape inside its first pixel, 0..SUBPIXELS-1.
    """
    (top, left), (height, width) = offset, outline.cells.shape
    rows, columns = -(-(top + height) // SUBPIXELS), -(-(left + width) // SUBPIXELS)
    grid = np.zeros((rows * SUBPIXELS, columns * SUBPIXELS), dtype=bool)
    grid[top : top + height, left : left + width] = outline.cells
    blocks = grid.reshape(rows, SUBPIXELS, columns, SUBPIXELS)
    total: NDArray[np.int32] = blocks.sum(axis=(1, 3), dtype=np.int32)
    return total
