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
import torch.distributed as dist
from torch import Tensor

from cm3_train.artifact import stamp
from cm3_train.collate import IGNORE, Sample
from cm3_train.integers import integer
from cm3_train.interface import INTERFACE_VERSION
from cm3_train.loader import Builder, check_state
from cm3_train.order import SampleOrder

COMPONENT = "cm3-train/packed-order"

AHEAD = 8
"""Samples that a row passes over before it is full enough."""


def collate_packed(rows: Sequence[Sequence[Sample]], length: int, pad_id: int) -> dict[str, Tensor]:
    """Lay samples side by side, and shift: a sample of L ids takes L - 1 positions.

    Args:
        rows: The samples of each row; together they take at most `length` positions.
        length: Positions of a row, T.
        pad_id: Fills `input_ids` up; its labels are -100, and it is one more document.

    Returns:
        `input_ids`, `labels` and `documents`, int64 (B, T), and `padding`, the share of positions
        that hold no sample.
    """
    input_ids = np.full((len(rows), length), pad_id, dtype=np.int64)
    labels = np.full_like(input_ids, IGNORE)
    documents = np.empty_like(input_ids)
    filled = 0
    for row, samples in enumerate(rows):
        end = 0
        for number, (ids, scored_from) in enumerate(samples):
            start, end = end, end + len(ids) - 1
            input_ids[row, start:end] = ids[:-1]
            documents[row, start:end] = number
            first = max(1, scored_from)
            labels[row, start + first - 1 : end] = ids[first:]
        documents[row, end:] = len(samples)
        filled += end
    arrays = {"input_ids": input_ids, "labels": labels, "documents": documents}
    batch = {name: torch.from_numpy(array) for name, array in arrays.items()}
    return batch | {"padding": torch.tensor(1 - filled / input_ids.size)}


class PackedLoader:
    """Endless packed batches; goes on where its state says, on any number of ranks.

    Every row of an optimizer step is a stream of its own. Of S rows, row g deals with the samples
    at positions g, g + S, g + 2 S, ... of the order. It takes those that fit, looking at up to
    `AHEAD` more than it has taken; those that were passed over come first in the stream's next row.
    So a row does not depend on how many ranks, or accumulated batches, share the step.

    Args:
        builder: Makes a sample of a key and an epoch.
        order: Which keys come when; its `batch_size` is the rows of a batch on this rank.
        length: Positions of a row.
        pad_id: Fills the rows up.
        accumulate: Batches of an optimizer step, as the trainer accumulates them.
    """

    def __init__(
        self,
        builder: Builder,
        order: SampleOrder,
        length: int,
        *,
        pad_id: int,
        accumulate: int = 1,
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
        self._rows = order.global_batch_size * accumulate  # S
        self._turn = 0
        self._waiting: dict[int, list[int]] = {}
        """Stream -> what it is to take next: numbers of samples passed over, then the first of the
        untouched ones. Streams of other ranks, and those not begun, have none."""
        self._built: dict[tuple[int, int], tuple[int, Sample]] = {}
        """(stream, number) -> key and sample, of those passed over."""

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        """Yield batches without end, each counted when it is handed out."""
        while True:
            packed = {stream: self._row(stream) for stream in self._streams()}
            samples = [[sample for _, sample in taken] for taken, _ in packed.values()]
            batch = collate_packed(samples, self.length, self.pad_id)
            batch["keys"] = torch.tensor([key for taken, _ in packed.values() for key, _ in taken])
            self._waiting |= {stream: waiting for stream, (_, waiting) in packed.items()}
            self._turn = (self._turn + 1) % self.accumulate
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """Return how far the streams of all ranks are; every rank must call it."""
        waiting = self._waiting
        if self.order.world_size > 1 and dist.is_initialized():
            everyones: list[Any] = [None] * self.order.world_size
            dist.all_gather_object(everyones, waiting)
            waiting = {stream: found for one in everyones for stream, found in one.items()}
        return {
            **stamp(COMPONENT, INTERFACE_VERSION),
            "waiting": [waiting.get(stream, [0]) for stream in range(self._rows)],
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
        if (rows, length) != (self._rows, self.length):
            raise ValueError(
                f"loader state: wanted a step of {self._rows} rows of {self.length} positions, "
                f"got one of {rows} rows of {length}"
            )
        mine = range(self.order.rank, self._rows, self.order.world_size)
        self._waiting = {stream: list(state_dict["waiting"][stream]) for stream in mine}
        self._turn = state_dict["turn"] % self.accumulate
        self._built.clear()

    def _streams(self) -> range:
        """Return the streams of this rank's next batch."""
        start = self._turn * self.order.global_batch_size
        stop = start + self.order.global_batch_size
        return range(start + self.order.rank, stop, self.order.world_size)

    def _row(self, stream: int) -> tuple[list[tuple[int, Sample]], list[int]]:
        """Return key and sample of all that a stream's next row takes, and what waits then."""
        *waiting, following = self._waiting.get(stream, [0])
        taken: list[tuple[int, Sample]] = []
        passed: list[int] = []
        room = self.length
        while room and len(passed) <= AHEAD:
            number = waiting.pop(0) if waiting else following
            following = max(following, number + 1)
            key, sample = self._sample(stream, number)
            size = len(sample.ids) - 1
            if size > self.length:
                raise ValueError(
                    f"key {key}: wanted at most length + 1 = {self.length + 1} ids, got {size + 1}"
                )
            if size > room:
                passed.append(number)
                self._built[stream, number] = key, sample
            else:
                taken.append((key, sample))
                room -= size
        return taken, [*passed, *waiting, following]

    def _sample(self, stream: int, number: int) -> tuple[int, Sample]:
        """Return key and sample of a stream's sample of a number; build it if it was not passed."""
        if (stream, number) in self._built:
            return self._built.pop((stream, number))
        keys, epochs = self.order.at(np.array([number * self._rows + stream]))
        return int(keys[0]), self.builder(int(keys[0]), int(epochs[0]))
