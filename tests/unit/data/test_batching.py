from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from msdetr.data.batching import Collator, count_cells, grow_to_cells
from msdetr.data.sample import Sample

MEAN, STD = (0.5, 0.25, 0.0), (0.5, 0.25, 1.0)
STRIDES = (8, 16, 32, 64)


def sample(height: int, width: int, num_targets: int, image_id: int = 7) -> Sample:
    return Sample(
        pixels=torch.full((3, height, width), 255, dtype=torch.uint8),
        boxes_cxcywh=torch.full((num_targets, 4), 0.5),
        labels=torch.arange(num_targets) + 1,
        image_id=image_id,
        original_hw=(height * 2, width * 2),
    )


def test_normalises_and_pads_with_zeros() -> None:
    batch = Collator(MEAN, STD, 0, STRIDES)([sample(40, 64, 2), sample(50, 33, 0, image_id=9)])
    assert batch.images.pixels.shape == (2, 3, 50, 64)
    assert batch.images.pixels[0, :, 0, 0].tolist() == [1, 3, 1]
    assert (batch.images.pixels[0, :, 40:] == 0).all()
    assert batch.images.padding_mask[0, 40:].all()
    assert not batch.images.padding_mask[0, :40].any()
    assert batch.images.padding_mask[1, :, 33:].all()
    assert not batch.images.padding_mask[1, :, :33].any()
    assert batch.original_hw.tolist() == [[80, 128], [100, 66]]
    assert batch.targets.counts.tolist() == [2, 0]
    assert batch.targets.labels.tolist() == [[1, 2], [0, 0]]
    assert batch.targets.image_ids.tolist() == [7, 9]


def test_pads_until_there_are_enough_cells() -> None:
    collate = Collator(MEAN, STD, 300, STRIDES)
    batch = collate([sample(40, 64, 1)])
    hw = tuple(batch.images.pixels.shape[2:])
    assert count_cells((hw[0], hw[1]), STRIDES) >= 300
    assert batch.images.padding_mask.sum() == hw[0] * hw[1] - 40 * 64


def test_large_images_are_not_padded_for_cells() -> None:
    assert grow_to_cells((800, 1066), STRIDES, 900) == (800, 1066)


@pytest.mark.parametrize(
    ("hw", "min_cells", "expected"),
    [
        ((32, 32), 22, (32, 32)),  # 16 + 4 + 1 + 1 cells are just enough
        ((32, 32), 23, (64, 32)),  # the shorter side grows, the height first
        ((32, 32), 44, (64, 64)),
        ((32, 100), 80, (64, 100)),
        ((100, 32), 80, (100, 64)),
    ],
)
def test_the_shorter_side_grows(
    hw: tuple[int, int], min_cells: int, expected: tuple[int, int]
) -> None:
    assert grow_to_cells(hw, STRIDES, min_cells) == expected


@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 1500))
def test_growth_is_always_enough(height: int, width: int, min_cells: int) -> None:
    grown = grow_to_cells((height, width), STRIDES, min_cells)
    assert count_cells(grown, STRIDES) >= min_cells
    assert (grown[0] - height) % 32 == (grown[1] - width) % 32 == 0
    assert grown[0] >= height
    assert grown[1] >= width


@pytest.mark.parametrize("side", [32, 33, 57, 96, 127, 129])
def test_cells_are_those_of_strided_convolutions(side: int) -> None:
    halve = nn.Conv2d(1, 1, 3, stride=2, padding=1)
    maps, cells = torch.zeros(1, 1, side, side), 0
    with torch.no_grad():
        for stride in (2, 4, 8, 16, 32, 64):
            maps = halve(maps)
            cells += maps[0, 0].numel() if stride in STRIDES else 0
    assert count_cells((side, side), STRIDES) == cells


def test_sides_are_padded_to_a_multiple() -> None:
    collate = Collator(MEAN, STD, 0, STRIDES, pad_multiple=48)
    alone = collate([sample(40, 50, 1)])
    assert alone.images.pixels.shape == (1, 3, 48, 96)
    together = collate([sample(40, 50, 1), sample(33, 90, 2)])
    assert together.images.pixels.shape == (2, 3, 48, 96)
    assert torch.equal(together.images.pixels[:1], alone.images.pixels)
    assert torch.equal(together.images.padding_mask[:1], alone.images.padding_mask)


def test_batch_moves_as_a_whole() -> None:
    batch = Collator(MEAN, STD, 0, STRIDES)([sample(32, 32, 1)])
    moved = batch.to("meta")
    assert moved.images.pixels.device.type == "meta"
    assert moved.targets.labels.device.type == "meta"
    assert moved.original_hw.device.type == "meta"
