"""Random numbers that depend on what is computed, not on who computes it or when."""

from __future__ import annotations

from hashlib import blake2b

import torch


def derive_seed(*parts: int | str) -> int:
    """Hash the parts into a seed in 0..2**63-1, the same on every machine and in every process.

    Example:
        ``derive_seed(42, "dropout", step, micro_batch)``
    """
    text = "/".join(str(part) for part in parts)
    digest = blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def seed_torch(*parts: int | str) -> None:
    """Seed torch's global generators, of the CPU and of every GPU, from the parts."""
    torch.manual_seed(derive_seed(*parts))
