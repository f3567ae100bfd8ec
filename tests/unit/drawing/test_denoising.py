"""Noised boxes around their targets."""

from __future__ import annotations

import numpy as np
from PIL import Image

from msdetr.drawing.denoising import NoisedBox, draw_noise
from msdetr.drawing.palette import COLORS

IMAGE = Image.new("RGB", (200, 100), (128, 128, 128))
TARGETS = [(20.0, 20.0, 80.0, 80.0), (110.0, 30.0, 180.0, 70.0)]
POSITIVE = NoisedBox((25.0, 15.0, 85.0, 75.0), 0, positive=True, flipped=False)
NEGATIVE = NoisedBox((100.0, 10.0, 190.0, 90.0), 1, positive=False, flipped=False)


def count(picture: Image.Image, color: tuple[int, int, int]) -> int:
    return int((np.asarray(picture) == color).all(axis=-1).sum())


def test_negative_slots_have_a_panel_of_their_own() -> None:
    one = draw_noise(IMAGE, TARGETS, ["a", "b"], [POSITIVE])
    two = draw_noise(IMAGE, TARGETS, ["a", "b"], [POSITIVE, NEGATIVE])
    assert two.height == one.height
    assert two.width > 2 * one.width - 10


def test_slots_have_the_color_of_their_target() -> None:
    without = draw_noise(IMAGE, TARGETS, ["a", "b"], [])
    with_slot = draw_noise(IMAGE, TARGETS, ["a", "b"], [POSITIVE])
    assert count(with_slot, COLORS[0]) > count(without, COLORS[0])
    assert count(with_slot, COLORS[1]) == count(without, COLORS[1])


def test_a_slot_with_another_class_is_drawn_differently() -> None:
    flipped = NoisedBox(POSITIVE.box_xyxy_px, 0, positive=True, flipped=True)
    same = draw_noise(IMAGE, TARGETS, ["a", "b"], [POSITIVE])
    other = draw_noise(IMAGE, TARGETS, ["a", "b"], [flipped])
    assert count(same, COLORS[0]) != count(other, COLORS[0])
