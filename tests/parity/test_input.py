"""The evaluation input equals that of the published models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from msdetr.data.batching import Collator
from msdetr.data.coco_index import locate_split, read_coco
from msdetr.data.dataset import DetectionDataset
from msdetr.data.labels import LabelSpace
from msdetr.data.transforms import EvalTransform, resized_hw

pytestmark = pytest.mark.golden


def test_resized_sizes(golden_dir: Path) -> None:
    cases = json.loads((golden_dir / "eval_resize.json").read_text())
    assert cases
    for case in cases:
        width, height = case["in_wh"]
        assert resized_hw((height, width), 800, 1333) == tuple(reversed(case["out_wh"]))


@pytest.mark.dataset
def test_pixels_of_real_images(golden_dir: Path, data_dir: Path, full_name: str) -> None:
    case = json.loads((golden_dir / "expected_full.json").read_text())[full_name]
    split = locate_split("val", root=data_dir / "coco-tiny")
    index = read_coco(split.images_dir, split.annotations_file)
    transform = EvalTransform(size=800, max_size=1333)
    dataset = DetectionDataset(index, transform, LabelSpace.coco91(index.categories), seed=0)
    collate = Collator((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 900, (8, 16, 32, 64))
    names = index.file_names.tolist()
    batch = collate([dataset[0, names.index(name)] for name in case["images"]])

    for i, (height, width) in enumerate(case["input_hw"]):
        pixels = batch.images.pixels[i, :, :height, :width]
        assert not batch.images.padding_mask[i, :height, :width].any()
        assert batch.images.padding_mask[i].sum() == (
            batch.images.padding_mask[i].numel() - height * width
        )
        per_channel = pixels.double().flatten(1)
        expected = torch.tensor(case["input_mean"][i], dtype=torch.float64)
        torch.testing.assert_close(per_channel.mean(1), expected, rtol=0, atol=1e-6)
        expected = torch.tensor(case["input_std"][i], dtype=torch.float64)
        torch.testing.assert_close(per_channel.std(1), expected, rtol=0, atol=1e-6)
        expected = torch.tensor(case["input_pixels_at_y100_x200"][i])
        torch.testing.assert_close(pixels[:, 100, 200], expected, rtol=0, atol=1e-6)
