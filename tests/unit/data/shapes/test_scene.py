"""What the embedded data set promises: frozen pixels, its statistics, and no help from colour."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from msdetr.data.shapes.dataset import scene_digest
from msdetr.data.shapes.layout import Placed, iou
from msdetr.data.shapes.outlines import SHAPE_CLASSES, SUBPIXELS
from msdetr.data.shapes.scene import Scene, generate_scene

FROZEN = {
    "train": "57f203038217b4f8613b2748fb0528d0ed1eb9abcffb228bccad1a0534c9ca44",
    "val": "8fa8195830b8bd2c373204ea08015ed4e9ab4548251068701bad0ce7f3d1aee1",
}
NUM_TRAIN, NUM_VAL = 250, 80
CHANCE = 1 / len(SHAPE_CLASSES)


@pytest.fixture(scope="module")
def train() -> list[Scene]:
    return [generate_scene("train", number) for number in range(NUM_TRAIN)]


@pytest.fixture(scope="module")
def val() -> list[Scene]:
    return [generate_scene("val", number) for number in range(NUM_VAL)]


@pytest.mark.parametrize("split", ["train", "val"])
def test_the_generator_is_frozen(split: str) -> None:
    """Results are only comparable on the same images: a change needs a new version."""
    digests = [scene_digest(generate_scene(split, number)) for number in range(10)]
    assert hashlib.sha256(b"".join(digests)).hexdigest() == FROZEN[split]


def test_sizes_and_counts(train: list[Scene]) -> None:
    sides = [side for scene in train for side in scene.pixels.shape[:2]]
    assert min(sides) >= 128
    assert max(sides) <= 256
    assert len(set(sides)) > 100
    counts = [len(scene.objects) for scene in train]
    assert set(counts) == set(range(13))
    assert np.mean([count == 0 for count in counts]) == pytest.approx(0.05, abs=0.03)


def test_shares_of_classes_and_small_objects(train: list[Scene]) -> None:
    objects = [placed for scene in train for placed in scene.objects]
    labels = np.bincount([placed.outline.label for placed in objects])
    assert len(labels) == len(SHAPE_CLASSES) >= 6
    assert labels / len(objects) == pytest.approx(CHANCE, abs=0.03)
    areas = np.array([placed.box_xywh_px[2] * placed.box_xywh_px[3] for placed in objects])
    assert np.mean(areas < 32 * 32) == pytest.approx(0.15, abs=0.03)
    assert min(min(placed.outline.size_px) for placed in objects) >= 14


def test_overlaps(train: list[Scene]) -> None:
    best = [
        max((iou(one, other) for other in scene.objects if other is not one), default=0.0)
        for scene in train
        for one in scene.objects
    ]
    overlapping = [overlap for overlap in best if overlap > 0.2]
    assert len(overlapping) / len(best) == pytest.approx(0.15, abs=0.03)
    assert max(overlapping) <= 0.45
    assert max(overlap for overlap in best if overlap <= 0.2) <= 0.1


def test_objects_lie_inside_and_stay_visible(train: list[Scene]) -> None:
    for scene in train:
        top = np.full(scene.pixels.shape[:2], -1)
        full = []
        for number, placed in enumerate(scene.objects):
            window, covered = placed.pixels()
            shown = covered * 2 > SUBPIXELS**2
            assert top[window].shape == shown.shape  # nothing is cut off at the border
            top[window][shown] = number
            full.append(shown.sum())
        visible = [(top == number).sum() for number in range(len(full))]
        assert all(seen >= 0.6 * whole for seen, whole in zip(visible, full, strict=True))


def test_boxes_are_tight(train: list[Scene]) -> None:
    for placed in (placed for scene in train[:30] for placed in scene.objects):
        (rows, columns), covered = placed.pixels()
        x, y, w, h = placed.box_xywh_px
        touched = np.argwhere(covered > 0)
        first, last = touched.min(axis=0), touched.max(axis=0) + 1
        assert 0 <= y - (rows.start + first[0]) < 1
        assert 0 <= x - (columns.start + first[1]) < 1
        assert 0 <= rows.start + last[0] - (y + h) < 1
        assert 0 <= columns.start + last[1] - (x + w) < 1


def test_objects_can_be_seen(train: list[Scene]) -> None:
    """The mean colour on an object differs from that right around it."""
    contrasts = []
    for scene in train[:100]:
        for placed in scene.objects[-1:]:  # nothing covers the last one
            window, covered = placed.pixels()
            outside = scene.pixels[window][covered == 0]
            if len(outside):  # an upright square fills its window
                inside = scene.pixels[window][covered == SUBPIXELS**2]
                contrasts.append(np.abs(inside.mean(axis=0) - outside.mean(axis=0)).sum())
    assert np.quantile(contrasts, 0.05) > 100


@dataclass(frozen=True)
class Colours:
    """Means and spreads of the colours on objects, and the objects' classes."""

    features: NDArray[np.float64]
    labels: NDArray[np.int64]


def colours_of(scenes: list[Scene]) -> Colours:
    features, labels = [], []
    for scene in scenes:
        for placed in scene.objects:
            window, covered = placed.pixels()
            pixels = scene.pixels[window][covered == SUBPIXELS**2].astype(np.float64)
            features.append([*pixels.mean(axis=0), *pixels.std(axis=0)])
            labels.append(placed.outline.label)
    return Colours(np.array(features), np.array(labels))


def nearest(queries: NDArray[np.float64], known: NDArray[np.float64]) -> NDArray[np.int64]:
    distances = ((queries[:, None] - known) ** 2).sum(axis=-1)
    return np.asarray(distances.argmin(axis=1), dtype=np.int64)


def test_colour_does_not_tell_the_class(train: list[Scene], val: list[Scene]) -> None:
    known, asked = colours_of(train), colours_of(val)
    centroids = [known.features[known.labels == c].mean(axis=0) for c in range(len(SHAPE_CLASSES))]
    by_centroid = nearest(asked.features, np.array(centroids))
    by_neighbour = known.labels[nearest(asked.features, known.features)]
    # Four standard deviations of guessing at random.
    margin = 4 * (CHANCE * (1 - CHANCE) / len(asked.labels)) ** 0.5
    assert (by_centroid == asked.labels).mean() < CHANCE + margin
    assert (by_neighbour == asked.labels).mean() < CHANCE + margin


@pytest.mark.parametrize("threshold", [40, 70, 100, 140, 200])
def test_colour_thresholds_do_not_find_the_objects(val: list[Scene], threshold: int) -> None:
    """Connected regions that differ from the image's median colour: most objects are missed."""
    hits, num_guesses, num_objects = 0, 0, 0
    for scene in val:
        guesses = salient_boxes(scene, threshold)
        boxes = [placed.box_xywh_px for placed in scene.objects]
        hits += sum(any(overlap(box, guess) >= 0.5 for guess in guesses) for box in boxes)
        num_guesses += len(guesses)
        num_objects += len(boxes)
    recall, precision = hits / num_objects, hits / num_guesses
    f1 = 2 * recall * precision / (recall + precision)
    assert f1 < 0.6
    # The class of what is found must then be guessed, see above.
    assert f1 * CHANCE < 0.1


Box = tuple[float, float, float, float]


def salient_boxes(scene: Scene, threshold: int) -> list[Box]:
    pixels = scene.pixels.astype(np.int64)
    differs = np.abs(pixels - np.median(pixels, axis=(0, 1))).sum(axis=-1) > threshold
    regions, _ = ndimage.label(differs)
    boxes = []
    for rows, columns in ndimage.find_objects(regions):
        width, height = columns.stop - columns.start, rows.stop - rows.start
        if width * height >= 14 * 14:
            boxes.append((float(columns.start), float(rows.start), float(width), float(height)))
    return boxes


def overlap(first: Box, second: Box) -> float:
    (x, y, w, h), (x2, y2, w2, h2) = first, second
    shared_w = max(0.0, min(x + w, x2 + w2) - max(x, x2))
    shared_h = max(0.0, min(y + h, y2 + h2) - max(y, y2))
    shared = shared_w * shared_h
    return shared / (w * h + w2 * h2 - shared)


def test_scenes_do_not_depend_on_one_another() -> None:
    alone = generate_scene("val", 7)
    generate_scene("val", 3)
    again = generate_scene("val", 7)
    np.testing.assert_array_equal(alone.pixels, again.pixels)
    boxes = [[placed.box_xywh_px for placed in scene.objects] for scene in (alone, again)]
    assert boxes[0] == boxes[1]


def test_small_is_what_coco_calls_small(train: list[Scene]) -> None:
    def area(placed: Placed) -> float:
        _, _, width, height = placed.box_xywh_px
        return width * height

    objects = [placed for scene in train for placed in scene.objects]
    assert all(placed.is_small == (area(placed) < 1024) for placed in objects)
