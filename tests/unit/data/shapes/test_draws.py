"""The stream of integers that the shapes are made of."""

from __future__ import annotations

import numpy as np

from msdetr.data.shapes.draws import Draws


def test_stream_is_frozen() -> None:
    assert [Draws(1, 2).integer(0, 9999) for _ in range(2)] == [7682] * 2
    assert Draws(2, 1).integer(0, 9999) != 7682


def test_both_ends_are_drawn_and_nothing_beyond() -> None:
    draws = Draws(0)
    assert {draws.integer(-1, 1) for _ in range(100)} == {-1, 0, 1}
    assert draws.integer(5, 5) == 5


def test_chances_of_none_and_all() -> None:
    draws = Draws(0)
    assert not any(draws.percent(0) for _ in range(300))
    assert all(draws.percent(100) for _ in range(300))


def test_every_value_is_chosen() -> None:
    draws = Draws(0)
    assert {draws.choose("abc") for _ in range(100)} == set("abc")


def test_levels_fill_any_shape_evenly() -> None:
    levels = Draws(0).levels((7, 11, 13), 5)
    assert levels.shape == (7, 11, 13)
    shares = np.bincount(levels.ravel(), minlength=5) / levels.size
    assert len(shares) == 5
    assert np.abs(shares - 0.2).max() < 0.05
