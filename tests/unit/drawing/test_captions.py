from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from msdetr.drawing.captions import place_captions

CANVAS = (200, 100)
coordinates = st.tuples(*[st.floats(0, 199)] * 2, *[st.floats(0, 99)] * 2)


def overlap(first: tuple[float, ...], second: tuple[float, ...]) -> bool:
    return (
        min(first[2], second[2]) - max(first[0], second[0]) > 1e-6
        and min(first[3], second[3]) - max(first[1], second[1]) > 1e-6
    )


@given(st.lists(coordinates, max_size=8))
def test_captions_keep_their_size_and_stay_inside(corners: list[tuple[float, ...]]) -> None:
    boxes = [(min(a, b), min(c, d), max(a, b), max(c, d)) for a, b, c, d in corners]
    for x0, y0, x1, y1 in place_captions(boxes, [(60, 15)] * len(boxes), CANVAS):
        assert abs(x1 - x0 - 60) < 1e-9
        assert abs(y1 - y0 - 15) < 1e-9
        assert x0 >= 0
        assert y0 >= 0
        assert x1 <= 200 + 1e-9
        assert y1 <= 100 + 1e-9


def test_caption_stands_above_its_box_where_there_is_room() -> None:
    assert place_captions([(50, 40, 90, 70)], [(30, 10)], CANVAS) == [(50, 30, 80, 40)]


def test_captions_of_coinciding_boxes_avoid_one_another() -> None:
    placed = place_captions([(50, 40, 120, 80)] * 6, [(30, 10)] * 6, CANVAS)
    assert not any(overlap(a, b) for i, a in enumerate(placed) for b in placed[:i])


def test_caption_wider_than_the_canvas_starts_at_its_left() -> None:
    ((left, _, right, _),) = place_captions([(150, 40, 180, 70)], [(300, 10)], CANVAS)
    assert (left, right) == (0, 300)
