from __future__ import annotations

import torch

from msdetr.model.memory import Memory
from msdetr.structures import FeatureLevels


def test_cells_run_level_by_level_and_row_by_row() -> None:
    maps = tuple(
        torch.arange(h * w, dtype=torch.float32).view(1, 1, h, w) for h, w in ((2, 3), (1, 2))
    )
    masks = tuple(torch.zeros(1, m.shape[2], m.shape[3], dtype=torch.bool) for m in maps)
    memory = Memory.from_levels(FeatureLevels(maps, masks))
    assert memory.features[0, :, 0].tolist() == [0, 1, 2, 3, 4, 5, 0, 1]
    assert memory.spatial_shapes == ((2, 3), (1, 2))
    assert memory.level_sizes.tolist() == [[3, 2], [2, 1]]


def test_valid_sizes_count_unpadded_cells(levels: FeatureLevels) -> None:
    memory = Memory.from_levels(levels)
    expected = [
        [[12, 8], [6, 4], [3, 2], [2, 1]],
        [[10, 12], [5, 6], [3, 3], [2, 2]],
    ]
    torch.testing.assert_close(memory.valid_ratios, torch.tensor(expected) / memory.level_sizes)
    torch.testing.assert_close(memory.valid_ratios[0, 0], torch.tensor([1.0, 8 / 12]))


def test_centres_are_relative_to_the_unpadded_part(levels: FeatureLevels) -> None:
    centres = Memory.from_levels(levels).cell_centres
    # Image 0, level 0: row 7, column 2 of 8 x 12 unpadded cells on a 12 x 12 map.
    torch.testing.assert_close(centres[0, 7 * 12 + 2], torch.tensor([2.5 / 12, 7.5 / 8]))
    # Image 1, level 1: row 5, column 4 of 6 x 5 unpadded cells on a 6 x 6 map.
    torch.testing.assert_close(centres[1, 144 + 5 * 6 + 4], torch.tensor([4.5 / 5, 5.5 / 6]))


def test_references_scale_points_and_both_corners_of_boxes(levels: FeatureLevels) -> None:
    memory = Memory.from_levels(levels)
    boxes = torch.tensor([0.5, 0.25, 0.2, 0.4]).expand(2, 1, 4)
    scaled = memory.references_per_level(boxes)
    ratio = memory.valid_ratios[0, 2]
    torch.testing.assert_close(scaled[0, 0, 2, :2], boxes[0, 0, :2] * ratio)
    torch.testing.assert_close(scaled[0, 0, 2, 2:], boxes[0, 0, 2:] * ratio)
    points = memory.references_per_level(boxes[..., :2])
    torch.testing.assert_close(points, scaled[..., :2])
