from __future__ import annotations

from collections import Counter

import pytest

from msdetr.data.sampling import EpochPlan, eval_batches
from msdetr.errors import UsageError


def plan(num_images: int = 50, **changes: int) -> EpochPlan:
    numbers = {"batch_size": 8, "images_per_forward": 2, "seed": 42, **changes}
    return EpochPlan(num_images, **numbers)


def test_one_process_sees_every_step_in_order() -> None:
    batches = list(plan().batches(epoch=3))
    assert len(batches) == 6 * 4
    assert {len(batch) for batch in batches} == {2}
    assert {epoch for batch in batches for epoch, _ in batch} == {3}
    positions = [position for batch in batches for _, position in batch]
    assert positions == plan().order(3)
    # 50 images make 6 steps of 8; the last two of the order are left out of this epoch.
    assert len(set(positions)) == 48


@pytest.mark.parametrize("num_processes", [2, 4])
def test_micro_batches_do_not_depend_on_the_number_of_processes(num_processes: int) -> None:
    alone = list(plan().batches(epoch=0))
    together = [list(plan().batches(0, rank, num_processes)) for rank in range(num_processes)]
    # Micro-batch j runs on process j mod num_processes: dealing them round restores the order.
    assert [batch for turn in zip(*together, strict=True) for batch in turn] == alone


def test_epochs_differ_and_repeat() -> None:
    assert plan().order(0) != plan().order(1)
    assert plan().order(1) == plan().order(1)
    assert plan().order(1) != plan(seed=43).order(1)


def test_images_left_out_change_from_epoch_to_epoch() -> None:
    left_out = [set(range(50)) - set(plan().order(epoch)) for epoch in range(20)]
    assert len(set().union(*left_out)) > 10


def test_few_images_are_repeated_to_fill_one_step() -> None:
    small = plan(3)
    assert small.num_steps == 1
    order = small.order(0)
    assert order == [*order[:3], *order[:3], *order[:2]]
    assert Counter(order).keys() == {0, 1, 2}


def test_resuming_in_the_middle_of_an_epoch() -> None:
    whole = list(plan().batches(1, rank=1, num_processes=2))
    assert list(plan().batches(1, rank=1, num_processes=2, first_step=4)) == whole[4 * 2 :]


def test_indivisible_numbers_are_refused() -> None:
    with pytest.raises(UsageError, match=r"train\.batch_size: must be a multiple .* \(3\), got 8"):
        plan(images_per_forward=3)
    with pytest.raises(UsageError, match="cannot be divided among 3 processes"):
        list(plan().batches(0, rank=0, num_processes=3))
    with pytest.raises(UsageError, match="num_images: must be at least 1, got 0"):
        plan(0)


@pytest.mark.parametrize("num_processes", [1, 2, 3, 8])
def test_evaluation_batches_do_not_depend_on_the_number_of_processes(num_processes: int) -> None:
    alone = list(eval_batches(range(11), 3))
    assert [[position for _, position in batch] for batch in alone] == [
        [0, 1, 2],
        [3, 4, 5],
        [6, 7, 8],
        [9, 10],
    ]
    dealt = [list(eval_batches(range(11), 3, rank, num_processes)) for rank in range(num_processes)]
    assert sorted(batch for rank in dealt for batch in rank) == alone
    assert all(
        dealt[j % num_processes][j // num_processes] == batch for j, batch in enumerate(alone)
    )
