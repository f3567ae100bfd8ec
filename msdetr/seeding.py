"""Random numbers that depend on what they are for, not on who draws them or when.

Two hashes, and both have to stay: merging them would change every random stream of every run.
"""

from __future__ import annotations

import hashlib

import torch


def stable_seed(*parts: int | str) -> int:
    """Hash the parts to a seed in 0..2**63-1, the same on every machine and in every process.

    Used for what belongs to an image: its augmentation, its random numbers in assignments.
    """
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) >> 1


def seeded_generator(*parts: int | str) -> torch.Generator:
    """Return a CPU generator seeded by :func:`stable_seed` of the parts."""
    return torch.Generator().manual_seed(stable_seed(*parts))


def derive_seed(*parts: int | str) -> int:
    """Hash the parts into a seed in 0..2**63-1, the same on every machine and in every process.

    Used for what belongs to a run: its initialization, its steps and micro-batches.

    Example:
        ``derive_seed(42, "dropout", step, micro_batch)``
    """
    text = "/".join(str(part) for part in parts)
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def seed_torch(*parts: int | str) -> None:
    """Seed torch's global generators, of the CPU and of every GPU, from the parts."""
    torch.manual_seed(derive_seed(*parts))
