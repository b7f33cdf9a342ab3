"""The order of samples: a function of (seed, epoch) and one count of consumed samples.

Where a position of an epoch lies among the keys is computed, not looked up in a shuffled list: 300
million samples need no list of theirs a process, and no time to shuffle it at each start.
"""

from __future__ import annotations

import hashlib
import math
from functools import cached_property

import numpy as np

from cm3_train.integers import INT64, integer, integers


class SampleOrder:
    """The order of samples: position p is key `shuffled(p mod N)` of epoch p // N.

    A global batch takes the next `batch_size * world_size` positions, of which rank r takes every
    `world_size`-th from r on. So the samples of a step do not depend on how many ranks share them.

    Example: N = 5, batch_size = 2, world_size = 2, consumed = 4: positions 4, 5, 6, 7, that is the
    last sample of epoch 0 and the first three of epoch 1; rank 0 takes positions 4 and 6.

    Args:
        keys: The samples, int64 (N,).
        seed: Of the run.
        batch_size: Samples of one batch on one rank.
        world_size: Number of ranks.
        rank: This one.

    Raises:
        ValueError: There is no key, or one or a number is no integer or out of its range.
    """

    def __init__(
        self,
        keys: np.ndarray,
        seed: int,
        batch_size: int,
        world_size: int = 1,
        rank: int = 0,
    ) -> None:
        """Check and keep the arguments."""
        self.keys = integers(keys, "keys")
        if len(self.keys) == 0:
            raise ValueError("keys: wanted at least one, got none")
        self.seed = integer(seed, "seed", (0, 2**64 - 1))
        self.batch_size = integer(batch_size, "batch_size", (1, INT64[1]))
        self.world_size = integer(world_size, "world_size", (1, INT64[1]))
        self.rank = integer(rank, "rank", (0, world_size - 1))

    @property
    def global_batch_size(self) -> int:
        """Samples that all ranks together consume in a step."""
        return self.batch_size * self.world_size

    def batch(self, consumed: int) -> tuple[np.ndarray, np.ndarray]:
        """Return this rank's keys and epochs, (batch_size,) each, after `consumed` samples."""
        return self.at(consumed + np.arange(self.rank, self.global_batch_size, self.world_size))

    def at(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the keys and epochs, (n,) each, at positions (n,) of the run."""
        epochs, within = np.divmod(positions, len(self.keys))
        keys = np.empty_like(positions)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            keys[here] = self.keys[shuffled(within[here], len(self.keys), self.seed, int(epoch))]
        return keys, epochs

    def fingerprint(self) -> str:
        """Return the SHA-256 of what the order is a function of: keys and seed."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        digest = hashlib.sha256(np.ascontiguousarray(self.keys))
        digest.update(f"shuffled by arithmetic, {self.seed}".encode())  # 0.1 shuffled a list
        return digest.hexdigest()


ROUNDS = 8


def shuffled(places: np.ndarray, count: int, seed: int, epoch: int) -> np.ndarray:
    """Return where places (n,) of 0..count - 1 come in a shuffled order: one to one, by arithmetic.

    A generalised Feistel cipher (Black and Rogaway, doi:10.1007/3-540-45760-7_9): a place is
    written as left * b + right; in turn, a hash of the one is added to the other, which can be
    taken back. Where a * b is above `count`, what falls behind the end is sent through again.

    Args:
        places: int64.
        count: How many places there are.
        seed: Of the run.
        epoch: Each has an order of its own.

    Returns:
        int64 (n,).
    """
    a = math.isqrt(count - 1) + 1
    b = -(-count // a)
    salts = np.random.SeedSequence((seed, epoch)).generate_state(ROUNDS, np.uint64)
    found = np.array(places, np.uint64)
    outside = np.ones(found.shape, bool)
    while outside.any():
        left, right = np.divmod(found[outside], np.uint64(b))
        for even, odd in salts.reshape(-1, 2):
            left = (left + _hash(right ^ even) % np.uint64(a)) % np.uint64(a)
            right = (right + _hash(left ^ odd) % np.uint64(b)) % np.uint64(b)
        found[outside] = left * np.uint64(b) + right
        outside = found >= count
    return found.astype(np.int64)


def _hash(values: np.ndarray) -> np.ndarray:
    """Mix the bits of uint64: SplitMix64's finaliser (doi:10.1145/2714064.2660195)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
