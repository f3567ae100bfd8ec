"""Queries before and after a suppressor, and lines to what suppressed them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from PIL import Image

from msdetr.drawing.palette import COLORS
from msdetr.drawing.suppression import DrawnSuppression, draw_suppression

IMAGE = Image.new("RGB", (200, 100), (128, 128, 128))
TARGETS = [(20.0, 20.0, 80.0, 80.0)]
KEPT = DrawnSuppression(
    box_xyxy_px=(22.0, 22.0, 82.0, 82.0),
    target=0,
    query=3,
    before=0.9,
    after=0.8,
    is_kept=True,
    by=-1,
    by_xyxy_px=None,
    weight=0.0,
    is_wrong=False,
)
SUPPRESSED = replace(
    KEPT, query=4, after=0.1, is_kept=False, by=5, by_xyxy_px=(120.0, 30.0, 180.0, 90.0), weight=0.9
)
RED = (220, 0, 0)


def count(picture: Image.Image, color: tuple[int, int, int]) -> int:
    return int((np.asarray(picture) == color).all(axis=-1).sum())


def after(*queries: DrawnSuppression) -> Image.Image:
    """The right panel."""
    sheet = draw_suppression(IMAGE, TARGETS, ["cat"], queries)
    return sheet.crop((sheet.width // 2, 0, sheet.width, sheet.height))


def test_a_line_leads_to_what_suppresses() -> None:
    near_end = (0.7, 0.5, 0.8, 0.7)
    found = []
    for queries in ((KEPT,), (KEPT, SUPPRESSED)):
        panel = after(*queries)
        sides = (panel.width, panel.height) * 2
        corner = [int(share * side) for share, side in zip(near_end, sides, strict=True)]
        found.append(count(panel.crop((corner[0], corner[1], corner[2], corner[3])), COLORS[0]))
    assert found[0] == 0
    assert found[1] > 50


def test_a_wrong_suppression_is_red() -> None:
    assert count(after(KEPT, SUPPRESSED), RED) == 0
    assert count(after(KEPT, replace(SUPPRESSED, is_wrong=True)), RED) > 50


def test_weak_attention_has_no_line() -> None:
    assert count(after(replace(SUPPRESSED, is_wrong=True, weight=0.01)), RED) == 0
