"""Targets with their queries."""

from __future__ import annotations

import re
from dataclasses import replace
from importlib.resources import files
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from msdetr.drawing.captions import Box
from msdetr.drawing.matching import (
    Role,
    ShownQuery,
    ShownTarget,
    compact,
    draw_overview,
    draw_region,
    draw_target,
    region_of,
)
from msdetr.drawing.matching_sheets import SheetHeading, layer_sheet, target_sheet
from msdetr.drawing.palette import contrast

PHOTO = Image.new("RGB", (400, 300), (40, 40, 60))
SIZE = (200, 150)
POSITIVE = ShownQuery(
    box_xyxy_px=(110, 90, 210, 200),
    query=7,
    rank=1,
    score=0.9,
    iou=0.8,
    probability=0.7,
    is_positive=True,
    is_pick=False,
    reason="",
)
PICK = replace(
    POSITIVE,
    box_xyxy_px=(130, 100, 215, 190),
    rank=2,
    score=0.5,
    is_positive=False,
    is_pick=True,
    reason="below threshold",
    pick_box_xyxy_px=(120, 95, 205, 195),
)
REJECTED = replace(
    POSITIVE, box_xyxy_px=(90, 60, 180, 170), rank=3, is_positive=False, reason="over k = 6"
)
TARGET = ShownTarget(
    (100, 80, 200, 180), "target 0: cat", "large", "n_t = 4", (POSITIVE, PICK, REJECTED)
)


def amount(sheet: Image.Image, role: Role) -> int:
    return int((np.asarray(sheet) == role.value.color).all(axis=2).sum())


def draw(*queries: ShownQuery) -> Image.Image:
    target = replace(TARGET, queries=queries)
    return draw_region(PHOTO, target, (50, 40, 250, 190), SIZE, tags=False)


def test_every_role_is_drawn_in_its_color() -> None:
    assert amount(draw(), Role.TARGET) > 300
    for query, role in ((POSITIVE, Role.POSITIVE), (PICK, Role.PICK), (REJECTED, Role.REJECTED)):
        assert amount(draw(), role) == 0
        assert amount(draw(query), role) > 100


def test_a_higher_score_gives_a_wider_line() -> None:
    areas = [
        amount(draw(replace(POSITIVE, score=score)), Role.POSITIVE) for score in (0.3, 0.6, 1.0)
    ]
    assert areas[0] < areas[1] < areas[2]


def test_scores_without_bounds_set_the_width_by_their_share() -> None:
    assert POSITIVE.width == POSITIVE.score
    assert replace(POSITIVE, score=-3.0, strength=0.5).width == 0.5


@pytest.mark.parametrize(
    ("score", "text"),
    [(-0.0447, "-0.04"), (-12.34, "-12"), (0.0221, "0.022"), (1.4e-5, "1e-5"), (0.0, "0")],
)
def test_score_of_any_size_fits_its_column(score: float, text: str) -> None:
    assert compact(score) == text


def test_roles_differ_in_lightness_or_pattern() -> None:
    styles = [role.value for role in Role]
    for number, first in enumerate(styles):
        for second in styles[:number]:
            assert first.dash != second.dash or contrast(first.color, second.color) > 1.5


@pytest.mark.parametrize("role", Role)
def test_a_line_or_its_rim_shows_on_any_background(role: Role) -> None:
    line, rim = role.value.color, role.value.rim
    greys = [(level,) * 3 for level in range(256)]
    assert contrast(line, rim) >= 3
    assert min(max(contrast(line, grey), contrast(rim, grey)) for grey in greys) >= 1.7


def test_roles_have_the_colors_of_the_page() -> None:
    sheets = (
        files("msdetr.drawing") / "look.css",
        files("msdetr.inspection.report") / "page/style.css",
    )
    style = "".join(sheet.read_text(encoding="utf-8") for sheet in sheets)
    for role in Role:
        digits = re.search(rf"--{role.name.lower()}: #(\w+);", style)
        assert digits is not None
        full = "".join(2 * digit for digit in digits[1]) if len(digits[1]) == 3 else digits[1]
        assert bytes.fromhex(full) == bytes(role.value.color)


@pytest.mark.parametrize(
    "box", [(100, 80, 200, 180), (0, 0, 3, 2), (390, 290, 400, 300), (0, 0, 400, 300)]
)
def test_region_shows_the_target_in_the_pictures_proportions(box: Box) -> None:
    target = ShownTarget(box, "target", "small", "", ())
    x0, y0, x1, y1 = region_of([target], SIZE, PHOTO.size)
    assert x0 <= box[0] and y0 <= box[1] and box[2] <= x1 and box[3] <= y1  # noqa: PT018
    assert (x1 - x0) / (y1 - y0) == pytest.approx(SIZE[0] / SIZE[1])
    assert x0 >= -1e-9
    assert x1 <= PHOTO.width + 1e-9


def test_region_reaches_to_positives_but_not_across_the_image() -> None:
    near = region_of([replace(TARGET, queries=())], SIZE, (2000, 1500))
    far = replace(POSITIVE, box_xyxy_px=(0, 0, 1900, 1400))
    reached = region_of([replace(TARGET, queries=(far,))], SIZE, (2000, 1500))
    assert near[2] - near[0] < reached[2] - reached[0] < 600


def test_captions_that_would_overlap_become_numbers_or_are_left_out() -> None:
    apart = [((20.0 + 120 * i, 100.0, 100.0 + 120 * i, 200.0), f"{i} cat") for i in range(3)]
    together = [((100.0, 100.0, 110.0, 110.0), f"{i} a very long name") for i in range(30)]
    wide = draw_overview(PHOTO, apart, PHOTO.size)
    crowded = draw_overview(PHOTO, together, PHOTO.size)
    # Captions lie on the colour of targets; 30 of them side by side would cover far more.
    assert amount(wide, Role.TARGET) > 3 * 400
    assert amount(crowded, Role.TARGET) < 10 * 20 * 17


def test_the_list_has_a_line_per_query() -> None:
    heights = [
        draw_target(PHOTO, replace(TARGET, queries=TARGET.queries[:n]), SIZE).height
        for n in range(4)
    ]
    assert len({second - first for first, second in pairwise(heights)}) == 1
    assert heights[3] > heights[0] > SIZE[1]


def test_sheets_hold_all_panels() -> None:
    heading = SheetHeading("image 1", "k 6")
    boxes = [(TARGET.box_xyxy_px, "0 cat")]
    one, five = (target_sheet(PHOTO, heading, boxes, [TARGET] * n) for n in (1, 5))
    assert five.width > one.width
    assert five.height > one.height
    strip = layer_sheet(PHOTO, heading, [[TARGET] * 3] * 2, [0, 1, 5])
    assert amount(strip, Role.PICK) > 6 * 100


def test_notes_name_both_roles_and_the_reason() -> None:
    assert POSITIVE.note == "1:n"
    assert replace(POSITIVE, is_pick=True).note == "1:n and 1:1"
    assert PICK.note == "1:1, below threshold"
    assert REJECTED.note == "over k = 6"
