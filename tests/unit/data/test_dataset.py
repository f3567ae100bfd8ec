from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from msdetr.data.coco_index import CocoIndex, read_coco
from msdetr.data.dataset import DetectionDataset
from msdetr.data.labels import Category, LabelSpace
from msdetr.data.transforms import EvalTransform, TrainTransform, Transform
from msdetr.errors import DataError, UnreadableImageError

TRAIN = TrainTransform(
    flip_probability=0.5,
    train_sizes=(32, 40, 48),
    max_size=100,
    crop_probability=0.5,
    crop_pre_sizes=(50,),
    crop_min=30,
    crop_max=50,
)


@pytest.fixture
def index(tmp_path: Path) -> CocoIndex:
    noise = np.random.default_rng(0).integers(0, 256, (40, 80, 3), dtype=np.uint8)
    for name in ("a.png", "b.png"):
        Image.fromarray(noise).save(tmp_path / name)
    images = [
        {"id": 20, "file_name": "b.png", "height": 40, "width": 80},
        {"id": 10, "file_name": "a.png", "height": 40, "width": 80},
        {"id": 30, "file_name": "missing.png", "height": 40, "width": 80},
    ]
    boxes = [(20, 5, [8, 4, 16, 20]), (10, 3, [0, 0, 80, 40]), (20, 3, [40, 20, 40, 20])]
    annotations = [
        {"id": i, "image_id": image, "category_id": category, "bbox": bbox}
        for i, (image, category, bbox) in enumerate(boxes)
    ]
    categories = [{"id": 3, "name": "x"}, {"id": 5, "name": "y"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (tmp_path / "annotations.json").write_text(json.dumps(content))
    return read_coco(tmp_path, tmp_path / "annotations.json")


def dataset(index: CocoIndex, transform: Transform = TRAIN, seed: int = 1) -> DetectionDataset:
    return DetectionDataset(index, transform, LabelSpace.contiguous(index.categories), seed)


def test_sample_of_an_evaluated_image(index: CocoIndex) -> None:
    sample = dataset(index, EvalTransform(size=80, max_size=1000))[0, 1]
    assert sample.pixels.shape == (3, 80, 160)
    assert sample.pixels.dtype == torch.uint8
    assert sample.image_id == 20
    assert sample.original_hw == (40, 80)
    assert sample.labels.tolist() == [1, 0]
    expected = torch.tensor([[0.2, 0.35, 0.2, 0.5], [0.75, 0.75, 0.5, 0.5]])
    torch.testing.assert_close(sample.boxes_cxcywh, expected)


def test_augmentation_follows_seed_epoch_and_image(index: CocoIndex) -> None:
    def shapes(seed: int, epochs: range, position: int) -> list[tuple[int, ...]]:
        data = dataset(index, seed=seed)
        return [tuple(data[epoch, position].pixels.shape) for epoch in epochs]

    once = shapes(1, range(8), 0)
    assert once == shapes(1, range(8), 0)
    assert len(set(once)) > 2
    assert once != shapes(2, range(8), 0)
    # Both files hold the same pixels; only the image id differs.
    assert once != shapes(1, range(8), 1)


def test_augmentation_does_not_depend_on_what_came_before(index: CocoIndex) -> None:
    data = dataset(index)
    alone = data[3, 0]
    other_order = [data[epoch, position] for epoch, position in ((3, 1), (0, 0), (3, 0))]
    assert torch.equal(other_order[-1].pixels, alone.pixels)
    assert torch.equal(other_order[-1].boxes_cxcywh, alone.boxes_cxcywh)


def test_augmentation_follows_the_id_not_the_position(index: CocoIndex) -> None:
    moved = dataset(index)[5, 0]
    limited = dataset(index.limit(1))[5, 0]
    assert torch.equal(moved.pixels, limited.pixels)


def test_missing_image_is_named(index: CocoIndex) -> None:
    with pytest.raises(DataError, match=r"missing\.png: the image file does not exist"):
        dataset(index)[0, 2]


def test_categories_that_the_model_does_not_know(index: CocoIndex) -> None:
    space = LabelSpace.contiguous([Category(3, "x")])
    with pytest.raises(DataError, match=r"annotations\.json: category ids 5 are not among"):
        DetectionDataset(index, TRAIN, space, seed=0)


def test_targets_stay_on_what_they_mark(tmp_path: Path) -> None:
    pixels = np.zeros((60, 90, 3), dtype=np.uint8)
    pixels[20:44, 30:66] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    content = {
        "images": [{"id": 1, "file_name": "a.png", "height": 60, "width": 90}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [30, 20, 36, 24]}],
        "categories": [{"id": 1, "name": "white"}],
    }
    (tmp_path / "a.json").write_text(json.dumps(content))
    data = dataset(read_coco(tmp_path, tmp_path / "a.json"))
    for epoch in range(20):
        sample = data[epoch, 0]
        _, height, width = sample.pixels.shape
        bright = sample.pixels[0] > 127
        rows, columns = bright.any(1).nonzero(), bright.any(0).nonzero()
        cx, cy, w, h = (sample.boxes_cxcywh[0] * torch.tensor([width, height] * 2)).tolist()
        found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        expected = [cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2]
        assert [float(v) for v in found] == pytest.approx(expected, abs=1.01)


class TestUnreadableImages:
    @pytest.fixture
    def damaged(self, index: CocoIndex, tmp_path: Path) -> DetectionDataset:
        """Of the images 10, 20 and 30 the last is missing, the second is cut off."""
        path = tmp_path / "b.png"
        path.write_bytes(path.read_bytes()[:500])
        space = LabelSpace.contiguous(index.categories)
        return DetectionDataset(index, TRAIN, space, seed=1, skip_unreadable=True)

    def test_next_readable_image_steps_in_with_its_own_augmentation(
        self, damaged: DetectionDataset, tmp_path: Path
    ) -> None:
        own, other = damaged[4, 0], damaged[4, 1]
        assert own.skipped == ()
        assert other.image_id == 10
        assert torch.equal(other.pixels, own.pixels)
        assert torch.equal(other.boxes_cxcywh, own.boxes_cxcywh)
        first, second = other.skipped
        assert first.startswith(f"{tmp_path / 'b.png'}: cannot be read as an image")
        assert second == f"{tmp_path / 'missing.png'}: the image file does not exist"

    def test_without_leave_nothing_is_skipped(self, damaged: DetectionDataset) -> None:
        with pytest.raises(UnreadableImageError, match=r"b\.png"):
            dataset(damaged.index)[0, 1]

    def test_too_many_in_a_row_stop(self, damaged: DetectionDataset, tmp_path: Path) -> None:
        (tmp_path / "a.png").unlink()
        with pytest.raises(DataError, match="3 images in a row cannot be read; the first is") as no:
            damaged[0, 0]
        assert "a.png: the image file does not exist" in str(no.value)

    def test_another_size_is_never_skipped(self, damaged: DetectionDataset, tmp_path: Path) -> None:
        Image.new("RGB", (5, 5)).save(tmp_path / "b.png")
        with pytest.raises(DataError, match="annotated as 80 x 40"):
            damaged[0, 1]
