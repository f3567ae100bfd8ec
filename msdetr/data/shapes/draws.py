"""Random integers that stay the same across versions of NumPy.

NumPy keeps the raw stream of a bit generator, not what its distributions make of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")


class Draws:
    """A stream of random integers.

    Args:
        seed: Integers that together name the stream.
    """

    def __init__(self, *seed: int) -> None:
        self._bits = np.random.PCG64(np.random.SeedSequence(seed))

    def integer(self, low: int, high: int) -> int:
        """Return an integer in low..high, both included."""
        # The bias of the remainder is below 2**-50 for the ranges used here.
        return low + int(self._bits.random_raw()) % (high - low + 1)

    def percent(self, chance: int) -> bool:
        """Return True in ``chance`` of 100 cases."""
        return self.integer(0, 99) < chance

    def choose(self, values: Sequence[T]) -> T:
        """Return one of the values, each with the same probability."""
        return values[self.integer(0, len(values) - 1)]

    def levels(self, shape: tuple[int, ...], num_levels: int) -> NDArray[np.int32]:
        """Return an array of integers in 0..num_levels-1; at most 256 levels."""
        count = int(np.prod(shape))
        words = np.asarray(self._bits.random_raw(-(-count // 4)), dtype="<u8")
        shorts = np.frombuffer(words.tobytes(), dtype="<u2")[:count].astype(np.int32)
        return (shorts * num_levels >> 16).reshape(shape)
