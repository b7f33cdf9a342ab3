"""Packed batches: whole samples side by side in long rows, told apart by document numbers.

Padding every row to the longest wastes what the others lack. Here a row of `length` positions takes
samples as long as one of the next fits. No sample is cut, so rows are long and few: with pairs of
1,024 codes and up to two retrieved pairs before them, whole samples leave a quarter of 4,096
positions empty, and 3 % of 32,768. The model must keep the documents of a row apart
(`hidden(input_ids, documents)`, as cm3_model's does by FlexAttention, arXiv 2412.05496).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from cm3_train.artifact import stamp
from cm3_train.collate import IGNORE, Sample, labels_of
from cm3_train.integers import INT64, integer, integers
from cm3_train.interface import INTERFACE_VERSION
from cm3_train.loader import Builder, check_state, from_workers
from cm3_train.order import SampleOrder
from cm3_train.ranks import of_all_ranks

COMPONENT = "cm3-train/packed-order"

AHEAD = 8
"""Samples that a row passes over before it is full enough."""
LOOK_UP = 64
"""Samples whose keys a stream asks for at once."""


def collate_packed(rows: Sequence[Sequence[Sample]], length: int, pad_id: int) -> dict[str, Tensor]:
    """Lay samples side by side, and shift: a sample of L ids takes L - 1 positions.

    Args:
        rows: The samples of each row; together they take at most `length` positions.
        length: Positions of a row, T.
        pad_id: Fills `input_ids` up; its labels are -100, and it is one more document.

    Returns:
        `input_ids`, `labels` and `documents`, int64 (B, T), `weights`, float32 (B, T), where a
        sample has some, and `padding`, the share of positions that hold no sample.
    """
    input_ids = np.full((len(rows), length), pad_id, dtype=np.int64)
    labels = np.full_like(input_ids, IGNORE)
    documents = np.empty_like(input_ids)
    weights = np.ones(input_ids.shape, dtype=np.float32)
    filled = 0
    for row, samples in enumerate(rows):
        end = 0
        for number, sample in enumerate(samples):
            ids = integers(sample.ids, f"samples: ids of row {row}")
            here = slice(end, end + len(ids) - 1)
            input_ids[row, here] = ids[:-1]
            documents[row, here] = number
            labels[row, here], weights[row, here] = labels_of(sample._replace(ids=ids))
            end = here.stop
        documents[row, end:] = len(samples)
        filled += end
    arrays = {"input_ids": input_ids, "labels": labels, "documents": documents}
    if any(sample.weights is not None for samples in rows for sample in samples):
        arrays["weights"] = weights
    batch = {name: torch.from_numpy(array) for name, array in arrays.items()}
    return batch | {"padding": torch.tensor(1 - filled / input_ids.size)}


class PackedLoader:
    """Endless packed batches; goes on where its state says, on any number of ranks and workers.

    Every row of an optimizer step is a stream of its own. Of S rows, row g deals with the samples
    at positions g, g + S, g + 2 S, ... of the order. It takes those that fit, looking at up to
    `AHEAD` more than it has taken; those that were passed over come first in the stream's next row.
    So a row does not depend on how many ranks, workers or accumulated batches share the step.

    Args:
        builder: Makes a sample of a key and an epoch.
        order: Which keys come when; its `batch_size` is the rows of a batch on this rank.
        length: Positions of a row.
        pad_id: Fills the rows up.
        accumulate: Batches of an optimizer step, as the trainer accumulates them.
        workers: Processes that make rows ahead, each of some of the streams; 0 makes them in this
            one. The batches are the same.
    """

    def __init__(
        self,
        builder: Builder,
        order: SampleOrder,
        length: int,
        *,
        pad_id: int,
        accumulate: int = 1,
        workers: int = 0,
    ) -> None:
        """Start at the first sample."""
        for name, value in (("length", length), ("accumulate", accumulate)):
            if value < 1:
                raise ValueError(f"{name}: wanted at least 1, got {value}")
        self.builder = builder
        self.order = order
        self.length = length
        self.pad_id = integer(pad_id, "pad_id")
        self.accumulate = accumulate
        self.workers = min(integer(workers, "workers", (0, INT64[1])), order.batch_size)
        self.rows = order.global_batch_size * accumulate  # S
        self._turn = 0
        self._waiting: dict[int, list[int]] = {}
        """Stream -> what it is to take next: numbers of samples passed over, then the first of the
        untouched ones. Streams of other ranks, and those not begun, have none."""

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        """Yield batches without end, each counted when it is handed out."""
        parts = from_workers(_Rows(self), self.workers)
        while True:
            batch, waiting = _joined([next(parts) for _ in range(max(1, self.workers))])
            self._waiting |= waiting
            self._turn = (self._turn + 1) % self.accumulate
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """Return how far the streams of all ranks are; every rank must call it."""
        waiting = self._waiting
        if self.order.world_size > 1:
            # processes that share a batch (tensor parallelism) tell the same
            everyones = of_all_ranks(waiting)
            waiting = {stream: found for one in everyones for stream, found in one.items()}
        return {
            **stamp(COMPONENT, INTERFACE_VERSION),
            "waiting": [waiting.get(stream, [0]) for stream in range(self.rows)],
            "turn": self._turn,
            "length": self.length,
            "fingerprint": self.order.fingerprint(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on behind the samples that `state_dict` says were taken.

        Raises:
            ValueError: The state belongs to other keys, another seed, or rows of another number or
                length.
        """
        check_state(state_dict, COMPONENT, self.order)
        rows, length = len(state_dict["waiting"]), state_dict["length"]
        if (rows, length) != (self.rows, self.length):
            raise ValueError(
                f"loader state: wanted a step of {self.rows} rows of {self.length} positions, "
                f"got one of {rows} rows of {length}"
            )
        mine = range(self.order.rank, self.rows, self.order.world_size)
        self._waiting = {stream: list(state_dict["waiting"][stream]) for stream in mine}
        self._turn = state_dict["turn"] % self.accumulate


Part = tuple[dict[str, Tensor], list[int], dict[int, list[int]]]
"""Rows of a batch, the samples in each, and what waits in their streams then."""


class _Rows(IterableDataset[Part]):
    """The rows of each batch, or those of one worker: every n-th."""

    def __init__(self, loader: PackedLoader) -> None:
        self.loader = loader

    def __iter__(self) -> Iterator[Part]:
        loader, order, turn = self.loader, self.loader.order, self.loader._turn
        info = get_worker_info()
        first, step = (info.id, info.num_workers) if info else (0, 1)
        streams: dict[int, _Stream] = {}
        while True:
            start = turn * order.global_batch_size
            mine = range(start + order.rank, start + order.global_batch_size, order.world_size)
            taken = []
            for number in mine[first::step]:
                if number not in streams:
                    streams[number] = _Stream(loader, number, loader._waiting.get(number, [0]))
                taken.append(streams[number].row())
            samples = [[sample for _, sample in row] for row in taken]
            batch = collate_packed(samples, loader.length, loader.pad_id)
            batch["keys"] = torch.tensor([key for row in taken for key, _ in row])
            waiting = {number: streams[number].waiting for number in mine[first::step]}
            yield batch, [len(row) for row in taken], waiting
            turn = (turn + 1) % loader.accumulate


class _Stream:
    """The samples of one row after the other."""

    def __init__(self, loader: PackedLoader, number: int, waiting: list[int]) -> None:
        self.loader = loader
        self.number = number
        self.waiting = waiting
        self._built: dict[int, tuple[int, Sample]] = {}
        self._looked_up: dict[int, tuple[int, int]] = {}

    def row(self) -> list[tuple[int, Sample]]:
        """Return key and sample of all that the stream's next row takes."""
        *waiting, following = self.waiting
        taken: list[tuple[int, Sample]] = []
        passed: list[int] = []
        length = room = self.loader.length
        while room and len(passed) <= AHEAD:
            number = waiting.pop(0) if waiting else following
            following = max(following, number + 1)
            key, sample = self._sample(number)
            size = len(sample.ids) - 1
            if size > length:
                raise ValueError(
                    f"key {key}: wanted at most length + 1 = {length + 1} ids, got {size + 1}"
                )
            if size > room:
                passed.append(number)
                self._built[number] = key, sample
            else:
                taken.append((key, sample))
                room -= size
        self.waiting = [*passed, *waiting, following]
        return taken

    def _sample(self, number: int) -> tuple[int, Sample]:
        """Return key and sample of a number; build it if it was not passed over."""
        if number in self._built:
            return self._built.pop(number)
        if number not in self._looked_up:  # many at once: the arithmetic of one costs as much
            numbers = np.arange(number, number + LOOK_UP)
            keys, epochs = self.loader.order.at(numbers * self.loader.rows + self.number)
            found = zip(keys.tolist(), epochs.tolist(), strict=True)
            self._looked_up = dict(zip(numbers.tolist(), found, strict=True))
        key, epoch = self._looked_up[number]
        return key, self.loader.builder(key, epoch)


def _joined(parts: list[Part]) -> tuple[dict[str, Tensor], dict[int, list[int]]]:
    """Join the parts of a batch: row i is part i mod n's next one."""
    waiting = {stream: numbers for _, _, one in parts for stream, numbers in one.items()}
    if len(parts) == 1:
        return parts[0][0], waiting
    rows = sum(len(counts) for _, counts, _ in parts)
    batch = {}
    for name in {name for part, _, _ in parts for name in part} - {"keys", "padding"}:
        like = next(part[name] for part, _, _ in parts if name in part)
        batch[name] = torch.ones(rows, *like.shape[1:], dtype=like.dtype)
        for place, (part, _, _) in enumerate(parts):
            if name in part:
                batch[name][place :: len(parts)] = part[name]
    keys = [part["keys"].split(counts) for part, counts, _ in parts]
    places = batch["input_ids"].numel()
    filled = sum(round((1 - float(p["padding"])) * p["input_ids"].numel()) for p, _, _ in parts)
    batch["padding"] = torch.tensor(1 - filled / places)
    batch["keys"] = torch.cat([keys[row % len(parts)][row // len(parts)] for row in range(rows)])
    return batch, waiting
