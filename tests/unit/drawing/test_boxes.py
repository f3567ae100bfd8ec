from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from msdetr.drawing.boxes import DrawnBox, canvas_scale, draw_boxes
from msdetr.drawing.detections import draw_detections
from msdetr.drawing.palette import COLORS, Style, class_style

GREY = (128, 128, 128)


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(int)


@pytest.mark.parametrize(
    ("size", "scale"),
    [
        ((128, 128), 4),
        ((640, 480), 1),
        ((1, 1), 480),
        ((20_000, 300), 8192 / 20_000),
        ((4000, 1), 1),
        ((300, 200), 3),
    ],
)
def test_small_images_are_enlarged_and_huge_ones_reduced(
    size: tuple[int, int], scale: float
) -> None:
    assert canvas_scale(size) == scale
    picture = draw_boxes(Image.new("RGB", size, GREY), [])
    assert picture.size == tuple(max(1, round(side * scale)) for side in size)


def test_outline_lies_on_the_scaled_box() -> None:
    style = Style(COLORS[0])
    picture = pixels(
        draw_boxes(Image.new("RGB", (240, 240), GREY), [DrawnBox((50, 60, 100, 150), "", style)])
    )
    rows, columns = np.nonzero((picture == COLORS[0]).all(axis=-1))
    assert (columns.min(), rows.min(), columns.max(), rows.max()) == (100, 120, 200, 300)
    assert (picture[115, :] == GREY).all()
    assert (picture[200, 150] == GREY).all()


@pytest.mark.parametrize("label", [0, 7, 14])
def test_dashes_leave_gaps_and_the_rim_closes_them(label: int) -> None:
    image = Image.new("RGB", (500, 500), GREY)
    picture = pixels(draw_boxes(image, [DrawnBox((100, 100, 400, 400), "", class_style(label))]))
    along = picture[100, 100:401]
    coloured = (along == class_style(label).color).all(axis=-1)
    assert coloured.any()
    assert coloured.all() == (class_style(label).dash == "solid")
    assert not (along == GREY).all(axis=-1).any()


def test_box_beyond_the_image_is_cut_off_but_visible() -> None:
    box = DrawnBox((-500.0, -20.0, 9000.0, 9000.0), "wide", class_style(2))
    picture = pixels(draw_boxes(Image.new("RGB", (500, 500), GREY), [box]))
    assert (picture[250, 0] == class_style(2).color).all()
    assert (picture[250, 499] == class_style(2).color).all()


def test_the_caller_keeps_its_image() -> None:
    image = Image.new("RGB", (500, 500), GREY)
    draw_boxes(image, [DrawnBox((10, 10, 400, 400), "a", class_style(0))])
    assert (pixels(image) == GREY).all()


def test_the_best_detection_lies_on_top() -> None:
    image = Image.new("RGB", (500, 500), GREY)
    boxes = torch.tensor([[100.0, 100.0, 400.0, 400.0]] * 2)
    for scores in ([0.9, 0.4], [0.4, 0.9]):
        picture = pixels(draw_detections(image, boxes, [0, 1], ["a", "b"], scores))
        best = int(np.argmax(scores))
        assert (picture[250, 100] == class_style(best).color).all()


def test_smaller_ground_truth_lies_on_top() -> None:
    boxes = [[100, 100, 200, 200], [100, 100, 400, 400]]
    for order in ([0, 1], [1, 0]):
        rows = [boxes[i] for i in order]
        picture = pixels(
            draw_detections(Image.new("RGB", (500, 500), GREY), rows, order, ["a", "b"])
        )
        assert (picture[150, 100] == class_style(0).color).all()


def test_no_detections() -> None:
    picture = draw_detections(Image.new("RGB", (500, 500), GREY), torch.zeros(0, 4), [], [], [])
    assert (pixels(picture) == GREY).all()


@pytest.mark.parametrize("size", [(1, 1), (4000, 1), (2, 700)])
def test_captions_on_slivers(size: tuple[int, int]) -> None:
    boxes = [[0.0, 0.0, size[0], size[1]]]
    picture = draw_detections(Image.new("RGB", size, GREY), boxes, [3], ["a long class name"])
    assert (pixels(picture) != GREY).any()
