"""Outlines on the finer grid and what they cover of pixels."""

from __future__ import annotations

import numpy as np
import pytest

from msdetr.data.shapes.draws import Draws
from msdetr.data.shapes.outlines import (
    SHAPE_CLASSES,
    SUBPIXELS,
    Outline,
    coverage,
    direction,
    draw_outline,
)


@pytest.mark.parametrize("label", range(len(SHAPE_CLASSES)))
def test_box_is_tight(label: int) -> None:
    cells = draw_outline(Draws(label), label, 20).cells
    assert all(line.any() for line in (cells[0], cells[-1], cells[:, 0], cells[:, -1]))


def test_a_disc_has_its_area_and_a_ring_its_hole() -> None:
    disc = draw_outline(Draws(1), 0, 20)
    width, height = disc.size_px
    assert disc.cells.mean() == pytest.approx(np.pi / 4, abs=0.02)
    assert 29 <= min(width, height) <= max(width, height) <= 51
    ring = draw_outline(Draws(1), [s.name for s in SHAPE_CLASSES].index("ring"), 20).cells
    assert not ring[ring.shape[0] // 2, ring.shape[1] // 2]


@pytest.mark.parametrize("offset", [(0, 0), (3, 1), (0, 3)])
def test_coverage_counts_every_cell_once(offset: tuple[int, int]) -> None:
    outline = Outline(0, np.ones((5, 9), dtype=bool))
    covered = coverage(outline, offset)
    assert covered.sum() == 45
    assert covered.max() <= SUBPIXELS**2
    assert covered[0, 0] == (SUBPIXELS - offset[0]) * (SUBPIXELS - offset[1])


def test_directions_are_rounded_to_1024ths() -> None:
    assert direction(90) == (0.0, 1.0)
    assert all((part * 1024).is_integer() for degrees in range(360) for part in direction(degrees))
