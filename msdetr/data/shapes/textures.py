"""Backgrounds and surfaces, in integer arithmetic throughout."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from msdetr.data.shapes.draws import Draws
from msdetr.data.shapes.outlines import direction

Color = NDArray[np.int32]
"""[3] RGB."""
Pixels = NDArray[np.int32]
"""[H, W, 3] RGB, not yet clipped to 0..255."""
Plane = NDArray[np.int32]
"""[H, W]."""

_COLOR_TRIES = 50
_MIN_DISTANCE = 200
_MIN_LIGHT_DIFFERENCE = 60


def draw_background(draws: Draws, hw: tuple[int, int]) -> Pixels:
    """Draw a gradient with stripes, soft clouds, lines, soft blobs and grain."""
    base = _color(draws, 50, 205)
    other = base + _color(draws, -60, 60)
    pixels = _blend(base, other, _ramp(draws, hw))
    pixels = pixels + _stripes(draws, hw, draws.integer(0, 16))[..., None]
    pixels = pixels + _clouds(draws, hw, draws.integer(8, 30))
    for _ in range(draws.integer(0, 4)):
        pixels = _add_blob(draws, pixels)
    for _ in range(draws.integer(0, 6)):
        pixels = _add_line(draws, pixels)
    return pixels + _grain(draws, hw)[..., None]


def draw_surface(draws: Draws, hw: tuple[int, int], behind: Color) -> Pixels:
    """Draw the texture of an object: plain, striped, chequered or clouded.

    Args:
        draws: Source of randomness.
        hw: Height and width in pixels.
        behind: Mean color of what the object covers; the object's color differs from it.
    """
    color = draw_contrasting(draws, behind)
    depth = draws.integer(10, 35)
    kind = draws.integer(0, 3)
    if kind == 0:
        relief = np.zeros(hw, dtype=np.int32)
    elif kind == 1:
        relief = _stripes(draws, hw, depth)
    elif kind == 2:
        relief = _chequers(draws, hw, depth)
    else:
        relief = _clouds(draws, hw, depth)[..., 0]
    return color + (relief + _grain(draws, hw))[..., None]


def draw_contrasting(draws: Draws, behind: Color) -> Color:
    """Draw any color that can be told from the one behind it."""
    for _ in range(_COLOR_TRIES):
        color = _color(draws, 10, 245)
        difference = color - behind
        light = abs(int(difference @ np.array([3, 6, 1]))) // 10
        if np.abs(difference).sum() >= _MIN_DISTANCE and light >= _MIN_LIGHT_DIFFERENCE:
            break
    return color


def _axes(hw: tuple[int, int]) -> tuple[Plane, Plane]:
    height, width = hw
    return np.arange(height, dtype=np.int32)[:, None], np.arange(width, dtype=np.int32)[None, :]


def _project(hw: tuple[int, int], degrees: int) -> Plane:
    """Distance along a direction, in 1/1024 px."""
    cosine, sine = (int(part * 1024) for part in direction(degrees))
    y, x = _axes(hw)
    distance: Plane = x * cosine + y * sine
    return distance


def _ramp(draws: Draws, hw: tuple[int, int]) -> Plane:
    projected = _project(hw, draws.integer(0, 359))
    along: Plane = projected - projected.min()
    return along * 256 // (int(along.max()) + 1)


def _blend(first: Color | Pixels, second: Color | Pixels, share: Plane) -> Pixels:
    """Mix two colors; a share of 256 is all of the second."""
    mixed: Pixels = first * (256 - share[..., None]) + second * share[..., None]
    return mixed >> 8


def _stripes(draws: Draws, hw: tuple[int, int], depth: int) -> Plane:
    period = draws.integer(5, 30) * 1024
    phase = (_project(hw, draws.integer(0, 359)) + draws.integer(0, period)) % period
    return np.where(phase * 2 < period, np.int32(depth), np.int32(-depth))


def _chequers(draws: Draws, hw: tuple[int, int], depth: int) -> Plane:
    side, degrees = draws.integer(3, 12) * 1024, draws.integer(0, 89)
    parity = _project(hw, degrees) // side + _project(hw, degrees + 90) // side
    return np.where(parity % 2 == 0, np.int32(depth), np.int32(-depth))


def _clouds(draws: Draws, hw: tuple[int, int], depth: int) -> Pixels:
    """Random values on a coarse grid, interpolated linearly."""
    cell = draws.integer(8, 40)
    knots = draws.levels((hw[0] // cell + 2, hw[1] // cell + 2, 3), 2 * depth + 1) - depth
    (row, down), (column, right) = (np.divmod(np.arange(side, dtype=np.int32), cell) for side in hw)
    down, right = down[:, None, None], right[:, None]
    upper, lower = knots[row], knots[row + 1]
    rows = upper * (cell - down) + lower * down
    values: Pixels = rows[:, column] * (cell - right) + rows[:, column + 1] * right
    return values // (cell * cell)


def _grain(draws: Draws, hw: tuple[int, int]) -> Plane:
    return (draws.levels(hw, 5) - 2) * draws.integer(1, 4)


def _add_blob(draws: Draws, pixels: Pixels) -> Pixels:
    height, width, _ = pixels.shape
    y, x = _axes((height, width))
    radius = draws.integer(8, 50)
    dy, dx = y - draws.integer(0, height), x - draws.integer(0, width)
    # No edge anywhere: the blob fades to nothing at its radius.
    nearness = np.maximum(radius * radius - dy * dy - dx * dx, 0)
    share = nearness * draws.integer(80, 200) // (radius * radius)
    return _blend(pixels, _color(draws, 10, 245), share)


def _add_line(draws: Draws, pixels: Pixels) -> Pixels:
    height, width, _ = pixels.shape
    degrees = draws.integer(0, 179)
    across = _project((height, width), degrees)
    along = _project((height, width), degrees + 90)
    point = draws.integer(0, height - 1), draws.integer(0, width - 1)
    on_line = np.abs(across - across[point]) <= draws.integer(512, 1536)
    in_reach = np.abs(along - along[point]) <= draws.integer(10, 80) * 1024
    return np.where((on_line & in_reach)[..., None], _color(draws, 10, 245), pixels)


def _color(draws: Draws, low: int, high: int) -> Color:
    return np.array([draws.integer(low, high) for _ in range(3)], dtype=np.int32)
