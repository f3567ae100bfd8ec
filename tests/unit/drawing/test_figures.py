"""Colors of series."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.figure import Figure

from msdetr.drawing.figures import PALETTE, color_of, save_figure


def test_series_beyond_the_palette_have_colors_of_their_own() -> None:
    colors = [color_of(index) for index in range(2 * len(PALETTE))]
    assert colors[: len(PALETTE)] == list(PALETTE)
    assert len(set(colors)) == len(colors)


@pytest.mark.parametrize("name", [r"a$\foo$", "$x_1$", r"\alpha 5 $ and 6 $"])
def test_names_are_shown_and_not_read_as_tex(name: str, tmp_path: Path) -> None:
    figure = Figure()
    axes = figure.add_subplot(title=name)
    axes.plot([0, 1], [0, 1], label=name)
    axes.legend()
    save_figure(figure, tmp_path / "figure.png")
    save_figure(figure, tmp_path / "figure.svg")
    assert (tmp_path / "figure.svg").read_text(encoding="utf-8").count(f">{name}<") == 2
