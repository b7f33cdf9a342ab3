"""The order of samples: a function of (seed, epoch) and one count of consumed samples."""

from __future__ import annotations

import hashlib

import numpy as np

from cm3_train.integers import INT64, integer, integers


class SampleOrder:
    """The order of samples: position p is entry p mod N of the permutation of epoch p // N.

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
        self._permutations: dict[int, np.ndarray] = {}

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
            keys[here] = self.keys[self._permutation(int(epoch))[within[here]]]
        return keys, epochs

    def fingerprint(self) -> str:
        """Return the SHA-256 of what the order is a function of: keys and seed."""
        return hashlib.sha256(self.keys.tobytes() + str(self.seed).encode()).hexdigest()

    def _permutation(self, epoch: int) -> np.ndarray:
        if epoch not in self._permutations:
            if len(self._permutations) > 1:  # a batch looks at neighbouring epochs at most twice
                self._permutations.clear()
            rng = np.random.default_rng((self.seed, epoch))
            self._permutations[epoch] = rng.permutation(len(self.keys))
        return self._permutations[epoch]
