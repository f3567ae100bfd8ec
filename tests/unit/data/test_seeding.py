from __future__ import annotations

import torch

from msdetr.data.seeding import seeded_generator, stable_seed


def test_the_seed_is_fixed_for_all_time() -> None:
    assert stable_seed("augmentation", 42, 3, 139) == 3618514277293153913


def test_every_part_and_its_place_matter() -> None:
    seeds = {
        stable_seed("a", 1, 2),
        stable_seed("b", 1, 2),
        stable_seed("a", 2, 1),
        stable_seed("a", 12),
        stable_seed("a", "1", 2),
        stable_seed("a", 1),
    }
    assert len(seeds) == 6
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_generators_repeat() -> None:
    first, second, other = (seeded_generator("x", part) for part in (1, 1, 2))
    drawn = torch.rand(4, generator=first)
    assert torch.equal(drawn, torch.rand(4, generator=second))
    assert not torch.equal(drawn, torch.rand(4, generator=other))
