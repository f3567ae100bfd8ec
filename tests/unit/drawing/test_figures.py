"""Colors of series."""

from __future__ import annotations

from msdetr.drawing.figures import PALETTE, color_of


def test_series_beyond_the_palette_have_colors_of_their_own() -> None:
    colors = [color_of(index) for index in range(2 * len(PALETTE))]
    assert colors[: len(PALETTE)] == list(PALETTE)
    assert len(set(colors)) == len(colors)
