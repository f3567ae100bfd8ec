from __future__ import annotations

import subprocess
import sys

import torch

from msdetr.engine.seeding import derive_seed, seed_torch


def test_seed_is_the_same_in_every_process() -> None:
    code = "from msdetr.engine.seeding import derive_seed; print(derive_seed(42, 'x', 3, 1))"
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
