"""Targets won and lost: two colors, dashed detections, and a legend below the picture."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from msdetr.drawing.won_and_lost import LOST, WON, draw_won_and_lost

IMAGE = Image.new("RGB", (640, 480), (128, 128, 128))


def count(picture: Image.Image, color: tuple[int, int, int]) -> int:
    """Pixels of a color above the legend."""
    pixels = np.asarray(picture)[: IMAGE.height]
    return int((pixels == color).all(axis=-1).sum())


def test_each_kind_has_its_color() -> None:
    nothing: list[list[float]] = []
    box = [[100.0, 100.0, 300.0, 300.0]]
    won, lost = draw_won_and_lost(IMAGE, box, nothing), draw_won_and_lost(IMAGE, nothing, box)
    assert count(won, WON.color) > 800 > count(won, LOST.color) == 0
    assert count(lost, LOST.color) > 800 > count(lost, WON.color) == 0
    neither = draw_won_and_lost(IMAGE, nothing, nothing)
    assert count(neither, WON.color) == count(neither, LOST.color) == 0


def test_detections_are_dashed_in_the_same_color() -> None:
    box = np.array([[100, 100, 300, 300]])
    targets = draw_won_and_lost(IMAGE, box, [], won_captions=[""])
    found = draw_won_and_lost(IMAGE, [], [], won_detections=box)
    assert 0 < count(found, WON.color) < 0.8 * count(targets, WON.color)


@pytest.mark.parametrize("size", [(640, 480), (60, 400), (480, 1200)])
def test_legend_stands_below_the_image(size: tuple[int, int]) -> None:
    picture = draw_won_and_lost(Image.new("RGB", size), [], [])
    colors = {tuple(pixel) for pixel in np.asarray(picture).reshape(-1, 3)[-picture.width * 90 :]}
    assert {WON.color, LOST.color} <= colors
    assert picture.height > size[1]


def test_captions_are_as_many_as_targets() -> None:
    with pytest.raises(ValueError, match="zip"):
        draw_won_and_lost(IMAGE, [[0, 0, 9, 9]], [], won_captions=["a", "b"])
