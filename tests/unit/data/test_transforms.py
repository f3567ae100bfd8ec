from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from msdetr.data.sample import Example
from msdetr.data.transforms import (
    EvalTransform,
    TrainTransform,
    clip_boxes_px,
    crop,
    flip,
    resize,
    resized_hw,
)

PUBLISHED: dict[str, Any] = {
    "flip_probability": 0.5,
    "train_sizes": range(480, 801, 32),
    "max_size": 1333,
    "crop_probability": 0.5,
    "crop_pre_sizes": (400, 500, 600),
    "crop_min": 384,
    "crop_max": 600,
}


def example(hw: tuple[int, int], boxes: list[list[float]]) -> Example:
    noise = np.random.default_rng(0).integers(0, 256, (*hw, 3), dtype=np.uint8)
    return Example(
        Image.fromarray(noise), torch.tensor(boxes).reshape(-1, 4), torch.arange(len(boxes))
    )


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("hw", "size", "max_size", "expected"),
    [
        ((480, 640), 800, 1333, (800, 1066)),  # the long side is truncated
        ((800, 1300), 800, 1333, (800, 1300)),  # already right
        ((480, 640), 480, None, (480, 640)),
        ((100, 1000), 400, None, (400, 4000)),  # no limit
        ((10, 1000), 800, 1333, (32, 1333)),  # no side below 32
        ((1000, 10), 800, 1333, (1333, 32)),
        ((1, 3000), 800, 1333, (32, 1333)),
        ((5, 5), 8, 1333, (32, 32)),
    ],
)
def test_resized_hw(
    hw: tuple[int, int], size: int, max_size: int | None, expected: tuple[int, int]
) -> None:
    assert resized_hw(hw, size, max_size) == expected


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(32, 1000))
def test_resized_sides_stay_in_range(height: int, width: int, size: int) -> None:
    resized = resized_hw((height, width), size, 1333)
    assert min(resized) >= 32
    assert max(resized) <= 1333 + 0.5 * 1333 / 31.5 + 1  # the short side is rounded
    assert resized_hw((width, height), size, 1333) == resized[::-1]


def test_resize_is_pillows(  # other antialiased resizers differ by one step in some pixels
) -> None:
    original = example((60, 90), [[9.0, 6.0, 45.0, 30.0]])
    changed = resize(original, 33, None)
    expected = original.image.resize((49, 33), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(np.asarray(changed.image), np.asarray(expected))
    scale = torch.tensor([49 / 90, 33 / 60] * 2)
    torch.testing.assert_close(changed.boxes_xyxy_px, original.boxes_xyxy_px * scale)


def test_flip_mirrors_pixels_and_boxes() -> None:
    original = example((20, 50), [[5.0, 2.0, 20.0, 12.0]])
    changed = flip(original)
    np.testing.assert_array_equal(np.asarray(changed.image), np.asarray(original.image)[:, ::-1])
    assert changed.boxes_xyxy_px.tolist() == [[30, 2, 45, 12]]
    assert flip(changed).boxes_xyxy_px.tolist() == original.boxes_xyxy_px.tolist()


def test_crop_clips_boxes_and_drops_those_left_without_area() -> None:
    boxes = [
        [0.0, 0.0, 15.0, 15.0],  # reaches into the region
        [0.0, 0.0, 10.0, 30.0],  # ends where the region begins
        [12.0, 8.0, 18.0, 12.0],  # inside
        [25.0, 5.0, 90.0, 90.0],  # reaches beyond
        [40.0, 5.0, 50.0, 30.0],  # right of it
    ]
    original = example((60, 60), boxes)
    changed = crop(original, (5, 10), (20, 30))
    np.testing.assert_array_equal(
        np.asarray(changed.image), np.asarray(original.image)[5:25, 10:40]
    )
    assert changed.boxes_xyxy_px.tolist() == [[0, 0, 5, 10], [2, 3, 8, 7], [15, 0, 30, 20]]
    assert changed.labels.tolist() == [0, 2, 3]


def test_clip_boxes() -> None:
    boxes = torch.tensor([[-3.0, 4.0, 12.0, 99.0]])
    assert clip_boxes_px(boxes, (20, 10)).tolist() == [[0, 4, 10, 20]]


def test_evaluation_draws_no_random_numbers() -> None:
    chance = generator()
    before = chance.get_state()
    changed = EvalTransform(size=64, max_size=100)(example((50, 50), []), chance)
    assert changed.image.size == (64, 64)
    assert torch.equal(chance.get_state(), before)


def test_training_sizes() -> None:
    transform = TrainTransform(**{**PUBLISHED, "crop_probability": 0.0})
    source = example((120, 160), [[0.0, 0.0, 160.0, 120.0]])
    seen = set()
    for seed in range(60):
        changed = transform(source, generator(seed))
        width, height = changed.image.size
        assert changed.boxes_xyxy_px.tolist()[0] == pytest.approx([0, 0, width, height])
        seen.add(height)
    assert seen <= set(PUBLISHED["train_sizes"])
    assert len(seen) > 8


def test_crop_before_resize() -> None:
    transform = TrainTransform(
        flip_probability=0.0,
        train_sizes=(64,),
        max_size=100,
        crop_probability=1.0,
        crop_pre_sizes=(80,),
        crop_min=40,
        crop_max=60,
    )
    corner = example((80, 400), [[0.0, 0.0, 400.0, 80.0]])
    ratios = set()
    for seed in range(40):
        changed = transform(corner, generator(seed))
        width, height = changed.image.size
        # Without the crop the long side would be 100 and the short one 20 (raised to 32).
        assert min(width, height) == 64
        assert changed.boxes_xyxy_px.tolist()[0] == pytest.approx([0, 0, width, height])
        ratios.add(round(width / height, 2))
    assert min(ratios) >= round(40 / 60, 2) - 0.01
    assert max(ratios) <= 60 / 40 + 0.02
    assert len(ratios) > 10


def test_crop_sides_are_bounded_by_a_small_image() -> None:
    transform = TrainTransform(
        **{**PUBLISHED, "crop_probability": 1.0, "crop_pre_sizes": (100,), "train_sizes": (64,)}
    )
    changed = transform(example((100, 100), []), generator())
    assert changed.image.size == (64, 64)


@pytest.mark.parametrize(("probability", "expected"), [(0.0, 0), (1.0, 20)])
def test_flip_probability(probability: float, expected: int) -> None:
    transform = TrainTransform(
        **{**PUBLISHED, "flip_probability": probability, "crop_probability": 0.0},
    )
    left = example((48, 48), [[0.0, 0.0, 10.0, 10.0]])
    flipped = sum(
        bool(transform(left, generator(seed)).boxes_xyxy_px[0, 0] > 0) for seed in range(20)
    )
    assert flipped == expected


def test_all_ways_occur_and_the_seed_decides() -> None:
    transform = TrainTransform(**PUBLISHED)
    source = example((96, 128), [[0.0, 0.0, 30.0, 30.0], [64.0, 48.0, 128.0, 96.0]])
    first = [transform(source, generator(seed)) for seed in range(12)]
    again = [transform(source, generator(seed)) for seed in range(12)]
    for one, two in zip(first, again, strict=True):
        assert torch.equal(one.boxes_xyxy_px, two.boxes_xyxy_px)
        assert one.image.tobytes() == two.image.tobytes()
    assert len({entry.image.size for entry in first}) > 6


def test_color_jitter_changes_pixels_within_bounds_and_nothing_else() -> None:
    plain, jittered = (TrainTransform(**PUBLISHED, color_jitter=s) for s in (0.0, 0.3))
    source = example((96, 128), [[0.0, 0.0, 30.0, 30.0]])
    means = []
    for seed in range(12):
        expected, changed = (transform(source, generator(seed)) for transform in (plain, jittered))
        assert torch.equal(changed.boxes_xyxy_px, expected.boxes_xyxy_px)
        assert changed.image.size == expected.image.size
        means.append(np.asarray(changed.image).mean() / np.asarray(expected.image).mean())
        assert 0.65 < means[-1] < 1.35
    assert min(means) < 0.9
    assert max(means) > 1.04
    assert np.std(np.asarray(changed.image)) != np.std(np.asarray(expected.image))


@pytest.mark.parametrize("color_jitter", [0.0, 0.5])
def test_the_global_generator_is_left_alone(color_jitter: float) -> None:
    before = torch.get_rng_state()
    transform = TrainTransform(**PUBLISHED, color_jitter=color_jitter)
    transform(example((96, 128), []), generator())
    assert torch.equal(torch.get_rng_state(), before)
