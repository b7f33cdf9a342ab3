"""Sets of records mixed to one: small ones are repeated and large ones thinned, within bounds.

The paper balances its tasks "with a threshold of 3/0.3" (arXiv 2309.02591, E.1). Here every set
gets the same share of an epoch, as far as no record then comes more than 3 times, nor fewer than
0.3 times, in an epoch; an epoch is as long as all sets together.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence

import numpy as np

from cm3_train.integers import INT64, integer


class Mixture:
    """Places 0..L - 1 of an epoch, each a record of one of the sets.

    A set with `times` 0.4 gives two fifths of its records in epoch 0, other two in epoch 1 and so
    on: over the epochs all come equally often. The records of an epoch are spread evenly over the
    set, since one is a golden section of the set away from the next.

    Args:
        sizes: Records of each set.
        up: Most times that a record comes in an epoch.
        down: Fewest times.

    Raises:
        ValueError: There is no set, one is empty, or the bounds leave 1 out.
    """

    def __init__(self, sizes: Sequence[int], *, up: float = 3.0, down: float = 0.3) -> None:
        """Find out how often each set comes."""
        if not sizes:
            raise ValueError("sizes: wanted at least one set, got none")
        self.sizes = [integer(n, f"sizes[{i}]", (1, INT64[1])) for i, n in enumerate(sizes)]
        self.times = balanced(self.sizes, up, down)
        self.lengths = [
            max(1, round(times * n)) for times, n in zip(self.times, self.sizes, strict=True)
        ]
        self._ends = np.cumsum(self.lengths).tolist()
        self._strides = [_stride(n) for n in self.sizes]

    def __len__(self) -> int:
        """Return the places of an epoch."""
        return self._ends[-1]

    def at(self, place: int, epoch: int) -> tuple[int, int]:
        """Return the set at a place of an epoch, and the row of its record.

        Raises:
            IndexError: There is no such place.
        """
        if not 0 <= place < len(self):
            raise IndexError(f"place: wanted 0..{len(self) - 1}, got {place}")
        number = bisect_right(self._ends, place)
        length, size = self.lengths[number], self.sizes[number]
        count = epoch * length + place - (self._ends[number] - length)
        return number, count * self._strides[number] % size


def balanced(sizes: Sequence[int], up: float, down: float) -> list[float]:
    """Return how many times a record of each set comes in an epoch, within [down, up].

    As many records come as there are; what the bounds leave is shared evenly among the sets.

    Raises:
        ValueError: The bounds leave 1 out.
    """
    if not 0 < down <= 1 <= up:
        raise ValueError(f"up, down: wanted down <= 1 <= up, down above 0, got {up} and {down}")
    counts = np.array(sizes, np.float64)

    def times(share: float) -> np.ndarray:
        return np.clip(share / counts, down, up)

    low, high = 0.0, up * float(counts.max())  # records that a set gives: grows with the share
    for _ in range(100):
        middle = (low + high) / 2
        if (times(middle) * counts).sum() < counts.sum():
            low = middle
        else:
            high = middle
    return times(high).tolist()


def _stride(size: int) -> int:
    """Return a step that meets every row of a set once before any again."""
    stride = max(1, round(size * (math.sqrt(5) - 1) / 2))
    while math.gcd(stride, size) > 1:
        stride += 1
    return stride
