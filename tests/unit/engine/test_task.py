from __future__ import annotations

from itertools import product

from msdetr.engine.task import MicroBatchPlace


def test_seeds_tell_steps_micro_batches_and_purposes_apart() -> None:
    seeds = [
        MicroBatchPlace(seed, epoch=0, step=step, index=index).derive_seed(purpose)
        for seed, step, index, purpose in product((0, 1), (0, 1), (0, 1), ("forward", "u"))
    ]
    assert len(set(seeds)) == len(seeds)


def test_seeds_depend_on_the_step_and_not_on_the_epoch_that_it_is_counted_to() -> None:
    places = [MicroBatchPlace(3, epoch, step=7, index=1) for epoch in (0, 1)]
    assert len({place.derive_seed("forward") for place in places}) == 1
