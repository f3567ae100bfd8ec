from __future__ import annotations

import pytest
import torch
from torch.utils.data import Dataset

from msdetr.data.batching import Batch, Collator
from msdetr.data.loading import BatchLoader
from msdetr.data.sample import Sample
from msdetr.data.sampling import Key
from msdetr.errors import DataError

COLLATE = Collator((0.0,) * 3, (1.0,) * 3, 0, (8,))


class Images(Dataset[Sample]):
    """Images whose id tells epoch and position; position 13 cannot be read."""

    def __getitem__(self, key: Key) -> Sample:
        epoch, position = key
        if position == 13:
            raise DataError("13.png", "the image file does not exist")
        return Sample(
            pixels=torch.zeros(3, 32, 32, dtype=torch.uint8),
            boxes_cxcywh=torch.zeros(0, 4),
            labels=torch.zeros(0, dtype=torch.int64),
            image_id=100 * epoch + position,
            original_hw=(32, 32),
        )


def ids(batches: list[Batch]) -> list[list[int]]:
    return [batch.targets.image_ids.tolist() for batch in batches]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches_come_in_order_epoch_after_epoch(num_workers: int) -> None:
    loader = BatchLoader(Images(), COLLATE, num_workers=num_workers)
    assert ids(list(loader.load([[(0, 4), (0, 2)], [(0, 1)], [(0, 3)]]))) == [[4, 2], [1], [3]]
    assert ids(list(loader.load([[(1, 5)], [(1, 0)]]))) == [[105], [100]]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_unreadable_image_is_reported_as_itself(num_workers: int) -> None:
    loader = BatchLoader(Images(), COLLATE, num_workers=num_workers)
    batches = loader.load([[(0, 1)], [(0, 2), (0, 13)]])
    assert ids([next(batches)]) == [[1]]
    with pytest.raises(DataError) as caught:
        next(batches)
    assert str(caught.value) == "13.png: the image file does not exist"


def test_the_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    list(BatchLoader(Images(), COLLATE, num_workers=0).load([[(0, 1)]]))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_abandoned_epoch_leaves_nothing_behind(num_workers: int) -> None:
    loader = BatchLoader(Images(), COLLATE, num_workers=num_workers)
    next(loader.load([[(0, position)] for position in range(10)]))
    assert ids(list(loader.load([[(1, 5)], [(1, 0)]]))) == [[105], [100]]
