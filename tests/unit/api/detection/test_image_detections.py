from __future__ import annotations

import pytest
import torch
from PIL import Image

from msdetr.api.detection.image_detections import ImageDetections, split_detections
from msdetr.data.labels import LabelSpace
from msdetr.structures import Detections

SPACE = LabelSpace((10, 20), ("cat", "dog"), 2)
BATCH = Detections(
    boxes_xyxy_px=torch.tensor([[[1.0, 2.0, 4.0, 8.0], [0.0, 0.0, 1.0, 1.0]]]).repeat(2, 1, 1),
    scores=torch.tensor([[0.9, 0.3], [0.2, 0.0]]),
    labels=torch.tensor([[1, 0], [0, 0]]),
)


def test_weak_and_suppressed_detections_are_left_out() -> None:
    for threshold, counts in {0.0: [2, 1], 0.3: [2, 0], 0.31: [1, 0], 1.0: [0, 0]}.items():
        found = split_detections(BATCH, [(10, 20), (30, 40)], SPACE, threshold)
        assert [len(entry) for entry in found] == counts
        assert [entry.image_hw for entry in found] == [(10, 20), (30, 40)]


def test_names_and_ids_come_from_the_label_space() -> None:
    first, second = split_detections(BATCH, [(10, 20), (30, 40)], SPACE, 0.0)
    assert first.class_names == ("dog", "cat")
    assert first.category_ids == (20, 10)
    assert str(first) == "2 detections: dog 0.90, cat 0.30"
    assert str(second) == "1 detection: cat 0.20"
    assert first.to_list()[0] == {
        "category_id": 20,
        "class_name": "dog",
        "score": pytest.approx(0.9),
        "bbox": [1.0, 2.0, 3.0, 6.0],
    }


def test_nothing_found() -> None:
    (empty, _) = split_detections(BATCH, [(10, 20), (30, 40)], SPACE, 1.0)
    assert str(empty) == "0 detections"
    assert empty.to_list() == []
    assert empty.boxes_xyxy_px.shape == (0, 4)
    assert empty.draw(Image.new("RGB", (20, 10))).mode == "RGB"


def test_fields_must_fit_together() -> None:
    with pytest.raises(ValueError, match="as many as scores"):
        ImageDetections(
            boxes_xyxy_px=torch.zeros(2, 4),
            scores=torch.zeros(2),
            labels=torch.zeros(2, dtype=torch.int64),
            class_names=("a",),
            category_ids=(1, 2),
            image_hw=(3, 3),
        )
