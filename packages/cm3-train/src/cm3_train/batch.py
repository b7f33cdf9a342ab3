"""Batches in an order that survives a kill: (seed, epoch) and one count of consumed samples.

Takes keys and a callable that builds a sample; gives endless batches whose loader Lightning saves
and restores (it calls `state_dict` and `load_state_dict` of any loader that has both).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cm3_train.artifact import check_stamp, stamp
from cm3_train.cm3 import query_start
from cm3_train.interface import INTERFACE_VERSION

COMPONENT = "cm3-train/sample-order"
IGNORE = -100
"""Label of a position that does not count; `torch.nn.functional.cross_entropy` skips it."""


class SampleOrder:
    """The order of samples: position p is entry p mod N of the permutation of epoch p // N.

    A global batch takes the next `batch_size * world_size` positions, of which rank r takes every
    `world_size`-th from r on. So the samples of a step do not depend on how many ranks share them.

    Example: N = 5, batch_size = 2, world_size = 2, consumed = 4: positions 4, 5, 6, 7, that is the
    last sample of epoch 0 and the first three of epoch 1; rank 0 takes positions 4 and 6.

    Args:
        keys: the samples, int64 (N,).
        seed: of the run.
        batch_size: samples of one batch on one rank.
        world_size: number of ranks.
        rank: this one.
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
        self.keys = np.asarray(keys, dtype=np.int64)
        if self.keys.ndim != 1 or len(self.keys) == 0:
            raise ValueError(f"keys: wanted at least one, flat, got shape {self.keys.shape}")
        if batch_size < 1:
            raise ValueError(f"batch_size: wanted at least 1, got {batch_size}")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank: wanted 0..{world_size - 1}, got {rank}")
        self.seed = seed
        self.batch_size = batch_size
        self.world_size = world_size
        self.rank = rank
        self._permutations: dict[int, np.ndarray] = {}

    @property
    def global_batch_size(self) -> int:
        """Samples that all ranks together consume in a step."""
        return self.batch_size * self.world_size

    def batch(self, consumed: int) -> tuple[np.ndarray, np.ndarray]:
        """Return this rank's keys and epochs, (batch_size,) each, after `consumed` samples."""
        positions = consumed + np.arange(self.rank, self.global_batch_size, self.world_size)
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


class GroupOrder(SampleOrder):
    """The order of groups of samples: a group comes with its members in turn, one at a time.

    Near copies (one concept in thirty colours) then do not take thirty times the training that a
    lone picture gets. An epoch holds `sum(group_repeats(counts, power))` samples, no key twice.

    Args:
        keys: the samples, int64 (N,).
        groups: the group of each, any labels (N,).
        power: see `group_repeats`.
        seed: of the run.
        batch_size: samples of one batch on one rank.
        world_size: number of ranks.
        rank: this one.
    """

    def __init__(
        self,
        keys: np.ndarray,
        groups: np.ndarray,
        power: float,
        seed: int,
        batch_size: int,
        world_size: int = 1,
        rank: int = 0,
    ) -> None:
        """Check and keep the arguments."""
        keys, groups = np.asarray(keys, dtype=np.int64), np.asarray(groups)
        if keys.shape != groups.shape:
            raise ValueError(
                f"groups: wanted one for each of {keys.shape} keys, got {groups.shape}"
            )
        mixed = np.random.default_rng(seed).permutation(len(keys))
        by_group = mixed[np.argsort(groups[mixed], kind="stable")]
        self._members = keys[by_group]
        _, self._first, self._count = np.unique(
            groups[by_group], return_index=True, return_counts=True
        )
        self._repeats = group_repeats(self._count, power)
        ends = np.cumsum(self._repeats)
        places = np.arange(ends[-1] if len(ends) else 0)
        self._group = np.repeat(np.arange(len(ends)), self._repeats)
        self._turn = places - (ends - self._repeats)[self._group]
        super().__init__(places, seed, batch_size, world_size, rank)

    def batch(self, consumed: int) -> tuple[np.ndarray, np.ndarray]:
        """Return this rank's keys and epochs, (batch_size,) each, after `consumed` samples."""
        places, epochs = super().batch(consumed)
        group = self._group[places]
        turn = epochs * self._repeats[group] + self._turn[places]
        return self._members[self._first[group] + turn % self._count[group]], epochs

    def fingerprint(self) -> str:
        """Return the SHA-256 of what the order is a function of: keys, groups, power and seed."""
        known = self._members.tobytes() + self._count.tobytes() + self._repeats.tobytes()
        return hashlib.sha256(known + str(self.seed).encode()).hexdigest()


def group_repeats(counts: np.ndarray, power: float) -> np.ndarray:
    """How often groups of `counts` (G,) members come in an epoch: counts ** power, rounded.

    1 shows every member once, 0 every group once.
    """
    if not 0 <= power <= 1:
        raise ValueError(f"power: wanted 0..1, got {power}")
    return np.round(np.asarray(counts) ** power).astype(np.int64)


class BatchLoader:
    """Endless loader of any kind of batch; goes on where its state says.

    Args:
        make_batch: `(keys (B,), epochs (B,)) -> batch`, deterministic.
        order: which keys come when.
    """

    def __init__(
        self, make_batch: Callable[[np.ndarray, np.ndarray], Any], order: SampleOrder
    ) -> None:
        """Start at the first sample."""
        self.make_batch = make_batch
        self.order = order
        self.consumed = 0

    def __iter__(self) -> Iterator[Any]:
        """Yield batches without end, each counted when it is handed out."""
        while True:
            batch = self.make_batch(*self.order.batch(self.consumed))
            self.consumed += self.order.global_batch_size
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """Return the count of consumed samples, and of what they are samples."""
        return {
            **stamp(COMPONENT, INTERFACE_VERSION),
            "consumed": self.consumed,
            "fingerprint": self.order.fingerprint(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on behind the samples that `state_dict` says were consumed.

        Raises:
            ValueError: the state belongs to other keys or another seed.
        """
        check_stamp(state_dict, COMPONENT, INTERFACE_VERSION, "loader state")
        if state_dict["fingerprint"] != self.order.fingerprint():
            raise ValueError(
                "loader state: wanted the state of these keys and this seed, "
                "got one of other data; start a new run folder"
            )
        self.consumed = state_dict["consumed"]


class TokenLoader(BatchLoader):
    """Endless batches of sequences, as `collate` makes them.

    Args:
        builder: `(key, epoch) -> ids`, such as a `SequenceBuilder`.
        order: which keys come when.
        pad_id: fills the rows up.
    """

    def __init__(
        self, builder: Callable[[int, int], np.ndarray], order: SampleOrder, *, pad_id: int
    ) -> None:
        """Start at the first sample."""
        super().__init__(_token_batches(builder, pad_id, None), order)


class ValidationLoader:
    """One pass over `keys` in their order, as epoch 0; the same batches every time.

    Args:
        builder: `(key, epoch) -> ids`; give it no CM3, so that the loss is that of plain documents.
        keys: what to validate on.
        batch_size: rows of a batch; the last may have fewer.
        pad_id: fills the rows up.
        query_break_id: if given, only the query pair counts (everything behind the last but one
            `<break>`), so that retrieved training pictures do not flatter the figure.
    """

    def __init__(
        self,
        builder: Callable[[int, int], np.ndarray],
        keys: np.ndarray,
        batch_size: int,
        *,
        pad_id: int,
        query_break_id: int | None = None,
    ) -> None:
        """Keep the arguments; nothing is built yet."""
        self._make_batch = _token_batches(builder, pad_id, query_break_id)
        self.keys = np.asarray(keys, dtype=np.int64)
        self.batch_size = batch_size

    def __len__(self) -> int:
        """Number of batches."""
        return -(-len(self.keys) // self.batch_size)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        """Yield the batches."""
        for start in range(0, len(self.keys), self.batch_size):
            keys = self.keys[start : start + self.batch_size]
            yield self._make_batch(keys, np.zeros_like(keys))


def collate(
    sequences: Sequence[np.ndarray], pad_id: int, score_from: Sequence[int] | None = None
) -> dict[str, Tensor]:
    """Pad on the right and shift: the label of a position is the id that follows it.

    Args:
        sequences: ids, (L_b,) each, at least two.
        pad_id: fills `input_ids` up; its labels are -100.
        score_from: per row the first id that counts as a label; None: every one from the second on.

    Returns:
        `input_ids` and `labels`, int64 (B, max L - 1). Ids [5, 6, 7] give inputs [5, 6] and labels
        [6, 7]; with `score_from` 2, labels [-100, 7].
    """
    width = max(len(ids) for ids in sequences) - 1
    if width < 1:
        raise ValueError("sequences: wanted at least two ids in one of them")
    input_ids = np.full((len(sequences), width), pad_id, dtype=np.int64)  # (B, T)
    labels = np.full((len(sequences), width), IGNORE, dtype=np.int64)  # (B, T)
    for row, ids in enumerate(sequences):
        first = 1 if score_from is None else max(1, score_from[row])
        input_ids[row, : len(ids) - 1] = ids[:-1]
        labels[row, first - 1 : len(ids) - 1] = ids[first:]
    return {"input_ids": torch.from_numpy(input_ids), "labels": torch.from_numpy(labels)}


def _token_batches(
    builder: Callable[[int, int], np.ndarray], pad_id: int, query_break_id: int | None
) -> Callable[[np.ndarray, np.ndarray], dict[str, Tensor]]:
    def make_batch(keys: np.ndarray, epochs: np.ndarray) -> dict[str, Tensor]:
        pairs = zip(keys.tolist(), epochs.tolist(), strict=True)
        sequences = [builder(key, epoch) for key, epoch in pairs]
        if query_break_id is None:
            return collate(sequences, pad_id)
        return collate(sequences, pad_id, [query_start(ids, query_break_id) for ids in sequences])

    return make_batch
