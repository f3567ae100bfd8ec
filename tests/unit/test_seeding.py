from __future__ import annotations

import subprocess
import sys

import torch

from msdetr.seeding import derive_seed, seed_torch, seeded_generator, stable_seed


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


def test_seed_is_the_same_in_every_process() -> None:
    code = "from msdetr.seeding import derive_seed; print(derive_seed(42, 'x', 3, 1))"
    environment = {"PYTHONHASHSEED": "77"}
    command = [sys.executable, "-c", code]
    printed = subprocess.check_output(command, env=environment, text=True)
    assert int(printed) == derive_seed(42, "x", 3, 1)


def test_parts_are_kept_apart() -> None:
    seeds = {derive_seed(1, 23), derive_seed(12, 3), derive_seed(123), derive_seed(3, 12)}
    assert len(seeds) == 4
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_seeding_repeats_torch_s_numbers() -> None:
    with torch.random.fork_rng(devices=[]):
        seed_torch(3, "a")
        first = torch.rand(4)
        seed_torch(3, "b")
        other = torch.rand(4)
        seed_torch(3, "a")
        assert torch.equal(torch.rand(4), first)
    assert not torch.equal(first, other)
