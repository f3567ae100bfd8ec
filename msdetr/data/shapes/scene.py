"""One image of the embedded data set: pixels and annotations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from msdetr.data.shapes.draws import Draws
from msdetr.data.shapes.layout import Placed, place_objects
from msdetr.data.shapes.outlines import SUBPIXELS
from msdetr.data.shapes.textures import Pixels, draw_background, draw_surface

GENERATOR_VERSION = 1
"""Changes whenever any pixel or annotation changes."""

SPLIT_SEEDS = {"train": 0, "val": 1}

_MIN_SIDE_PX, _MAX_SIDE_PX = 128, 256


@dataclass(frozen=True, eq=False)
class Scene:
    """A generated image.

    Attributes:
        pixels: [H, W, 3] uint8, RGB.
        objects: The shapes in the order of drawing: later ones cover earlier ones.
    """

    pixels: NDArray[np.uint8]
    objects: tuple[Placed, ...]


def generate_scene(split: str, number: int) -> Scene:
    """Draw an image; it depends on nothing but its split and number.

    Args:
        split: "train" or "val"; they share no seed.
        number: Position in the split, from 0.
    """
    draws = Draws(GENERATOR_VERSION, SPLIT_SEEDS[split], number)
    height, width = (draws.integer(_MIN_SIDE_PX, _MAX_SIDE_PX) for _ in range(2))
    pixels = draw_background(draws, (height, width))
    objects = place_objects(draws, (height, width))
    for placed in objects:
        _paint(draws, pixels, placed)
    return Scene(np.clip(pixels, 0, 255).astype(np.uint8), tuple(objects))


def _paint(draws: Draws, pixels: Pixels, placed: Placed) -> None:
    window, covered = placed.pixels()
    under, share = pixels[window], covered[..., None]
    behind = (under * share).sum(axis=(0, 1)) // share.sum()
    surface = draw_surface(draws, covered.shape, behind)
    whole = SUBPIXELS**2
    pixels[window] = (surface * share + under * (whole - share)) // whole
