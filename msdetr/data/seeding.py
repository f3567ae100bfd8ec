"""Seeds that depend on what they are for and on nothing else."""

from __future__ import annotations

import hashlib

import torch


def stable_seed(*parts: int | str) -> int:
    """Hash the parts to a seed in 0..2**63-1, the same on every machine and in every process."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) >> 1


def seeded_generator(*parts: int | str) -> torch.Generator:
    """Return a CPU generator seeded by :func:`stable_seed` of the parts."""
    return torch.Generator().manual_seed(stable_seed(*parts))
