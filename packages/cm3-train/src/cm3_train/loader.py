"""Loaders of batches: endless and resumable for training, one pass for validation.

Lightning saves and restores a training loader: it calls `state_dict` and `load_state_dict` of any
loader that has both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from cm3_train.artifact import check_stamp, stamp
from cm3_train.collate import Sample, collate
from cm3_train.integers import INT64, integer, integers
from cm3_train.interface import INTERFACE_VERSION
from cm3_train.order import SampleOrder

COMPONENT = "cm3-train/sample-order"

Builder = Callable[[int, int], Sample]
"""`(key, epoch) -> Sample`, such as a `SequenceBuilder`."""
MakeBatch = Callable[[np.ndarray, np.ndarray, int], Any]
"""`(keys (B,), epochs (B,), position) -> batch`. `position` is the place in the run of the global
batch's first sample: the same on every rank, so it seeds what a whole batch has in common."""


class BatchLoader:
    """Endless loader of any kind of batch; goes on where its state says.

    Args:
        make_batch: A function of its arguments alone.
        order: Which keys come when.
        workers: Processes that make batches ahead; 0 makes them in this one. The batches are the
            same.
    """

    def __init__(self, make_batch: MakeBatch, order: SampleOrder, *, workers: int = 0) -> None:
        """Start at the first sample."""
        self.make_batch = make_batch
        self.order = order
        self.workers = integer(workers, "workers", (0, INT64[1]))
        self.consumed = 0

    def __iter__(self) -> Iterator[Any]:
        """Yield batches without end, each counted when it is handed out."""
        places = count(self.consumed, self.order.global_batch_size)
        batches = from_workers(_Batches(self), self.workers, places)
        for batch in batches:
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
            ValueError: The state belongs to other keys or another seed.
        """
        check_state(state_dict, COMPONENT, self.order)
        self.consumed = state_dict["consumed"]


class _Batches(Dataset[Any]):
    """Batches by the count of samples before them, as PyTorch's workers ask for them."""

    def __init__(self, loader: BatchLoader) -> None:
        self.loader = loader

    def __getitem__(self, consumed: int) -> Any:
        return self.loader.make_batch(*self.loader.order.batch(consumed), consumed)


def from_workers(
    items: Dataset[Any], workers: int, places: Iterator[int] | None = None
) -> Iterator[Any]:
    """Yield the items of PyTorch's workers, in order and as they are.

    A worker that dies ends the iteration by a RuntimeError that tells its signal; an exception in
    one is raised here. Workers are forked, so that `items` need not be pickled.

    Args:
        items: By place, or an `IterableDataset`, of which each worker has a copy.
        workers: Their number; 0 makes the items here.
        places: Which items, if they are by place.
    """
    batches = DataLoader(
        items,
        batch_size=None,
        sampler=_Places(places) if places is not None else None,
        num_workers=workers,
        multiprocessing_context="fork" if workers else None,
        generator=torch.Generator(),  # its seed for the workers must not come from the run's
        collate_fn=_as_it_is,
    )
    try:
        yield from batches
    except (EOFError, ConnectionError) as error:  # its end of a pipe, before its death is seen
        if not workers:
            raise
        raise RuntimeError(f"a worker of the loader exited unexpectedly ({error!r})") from error


class _Places(Sampler[int]):
    """Places as PyTorch's loader wants them."""

    def __init__(self, places: Iterator[int]) -> None:
        self.places = places

    def __iter__(self) -> Iterator[int]:
        return self.places


def _as_it_is(item: Any) -> Any:
    return item


def check_state(state_dict: dict[str, Any], component: str, order: SampleOrder) -> None:
    """Refuse a loader's state of another component, other keys or another seed.

    Raises:
        ValueError: It is one.
    """
    check_stamp(state_dict, component, INTERFACE_VERSION, "loader state")
    if state_dict["fingerprint"] != order.fingerprint():
        raise ValueError(
            "loader state: wanted the state of these keys and this seed, "
            "got one of other data; start a new run folder"
        )


class TokenLoader(BatchLoader):
    """Endless batches of sequences, as `collate` makes them.

    Args:
        builder: Makes a sample of a key and an epoch.
        order: Which keys come when.
        pad_id: Fills the rows up.
        workers: As of `BatchLoader`.
    """

    def __init__(
        self, builder: Builder, order: SampleOrder, *, pad_id: int, workers: int = 0
    ) -> None:
        """Start at the first sample."""
        pad_id = integer(pad_id, "pad_id")

        def make_batch(keys: np.ndarray, epochs: np.ndarray, position: int) -> dict[str, Tensor]:
            return build_batch(builder, keys, epochs, pad_id)

        super().__init__(make_batch, order, workers=workers)


class ValidationLoader:
    """One pass over `keys` in their order, as epoch 0; the same batches every time.

    Args:
        builder: Makes a sample of a key and an epoch; give it no CM3, so that the loss is that of
            plain documents.
        keys: What to validate on.
        batch_size: Rows of a batch; the last may have fewer.
        pad_id: Fills the rows up.
        world_size: Number of ranks.
        rank: This one: it takes every `world_size`-th key.

    Raises:
        ValueError: There are fewer keys than ranks, or a key or number is no integer.
    """

    def __init__(
        self,
        builder: Builder,
        keys: np.ndarray,
        batch_size: int,
        *,
        pad_id: int,
        world_size: int = 1,
        rank: int = 0,
    ) -> None:
        """Check and keep the arguments; nothing is built yet."""
        keys = integers(keys, "keys")
        if len(keys) < world_size:  # a rank without a batch would keep the others waiting
            raise ValueError(f"keys: wanted at least {world_size}, one a rank, got {len(keys)}")
        self.builder = builder
        self.keys = keys[rank::world_size]
        self.batch_size = integer(batch_size, "batch_size", (1, INT64[1]))
        self.pad_id = integer(pad_id, "pad_id")

    def __len__(self) -> int:
        """Return the number of batches."""
        return -(-len(self.keys) // self.batch_size)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        """Yield the batches."""
        for start in range(0, len(self.keys), self.batch_size):
            keys = self.keys[start : start + self.batch_size]
            yield build_batch(self.builder, keys, np.zeros_like(keys), self.pad_id)


def build_batch(
    builder: Builder, keys: np.ndarray, epochs: np.ndarray, pad_id: int
) -> dict[str, Tensor]:
    """Build and collate the samples of keys (B,) in epochs (B,); the batch also has the `keys`."""
    pairs = zip(keys.tolist(), epochs.tolist(), strict=True)
    batch = collate([builder(key, epoch) for key, epoch in pairs], pad_id)
    return {**batch, "keys": torch.tensor(keys)}
