"""Rows of ids of different lengths, stored as one array and the offsets where rows begin.

The rows are views of the one array, so no Python int is made for an id. `values` and `offsets` are
the layout of Arrow's list columns.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np


def id_dtype(vocab_size: int) -> np.dtype:
    """Return uint16 if it holds every id in `[0, vocab_size)`, else uint32."""
    return np.dtype(np.uint16 if vocab_size <= 1 << 16 else np.uint32)


@dataclass(frozen=True, eq=False)
class Ragged(Sequence[np.ndarray]):
    """A sequence of 1-D arrays that share one buffer: row n is `values[offsets[n]:offsets[n + 1]]`.

    A slice of rows with step 1 is a `Ragged` of the same buffer.
    """

    values: np.ndarray
    """(total,) all rows, one after the other."""
    offsets: np.ndarray
    """(N + 1,) int64 from 0 to total: the start of each row, and the end of the last."""

    def __post_init__(self) -> None:
        """Check that the offsets cut the values into rows."""
        values, offsets = self.values, self.offsets
        if values.ndim != 1 or offsets.ndim != 1 or offsets.size == 0:
            got = f"the shapes {values.shape} and {offsets.shape}"
            raise ValueError(f"values, offsets: wanted (total,) and (N + 1,), got {got}")
        if offsets[0] != 0 or offsets[-1] != values.size or (np.diff(offsets) < 0).any():
            wanted = f"a rising row from 0 to {values.size}"
            raise ValueError(f"offsets: wanted {wanted}, got {offsets}")

    @classmethod
    def from_rows(cls, rows: Sequence[Sequence[int]], dtype: np.dtype) -> "Ragged":
        """Copy `rows` one after the other, as `dtype`."""
        offsets = np.zeros(len(rows) + 1, np.int64)
        np.cumsum(np.fromiter(map(len, rows), np.int64, len(rows)), out=offsets[1:])
        joined = itertools.chain.from_iterable(rows)
        return cls(np.fromiter(joined, dtype, int(offsets[-1])), offsets)

    @property
    def lengths(self) -> np.ndarray:
        """(N,) int64 lengths of the rows."""
        return np.diff(self.offsets)

    def with_rows(self, rows: Mapping[int, Sequence[int]]) -> "Ragged":
        """Return a copy in which the rows of these numbers, empty so far, hold these values."""
        numbers = np.array(sorted(rows), np.int64)
        sizes = np.array([len(rows[n]) for n in numbers.tolist()], np.int64)
        new = np.fromiter(itertools.chain.from_iterable(rows[n] for n in numbers), np.int64)
        places = np.repeat(self.offsets[numbers], sizes)
        grown = np.zeros_like(self.offsets)
        grown[numbers + 1] = sizes
        values = np.insert(self.values, places, new.astype(self.values.dtype))
        return Ragged(values, self.offsets + np.cumsum(grown))

    def tolist(self) -> list[list[int]]:
        """Return the rows as lists of Python ints."""
        return [row.tolist() for row in self]

    def __len__(self) -> int:
        """Return the number of rows."""
        return self.offsets.size - 1

    @overload
    def __getitem__(self, index: int) -> np.ndarray: ...
    @overload
    def __getitem__(self, index: slice) -> "Ragged": ...
    def __getitem__(self, index: int | slice) -> "np.ndarray | Ragged":
        """Return one row, a view of `values`, or a `Ragged` of several."""
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step != 1:
                rows = [self[n].tolist() for n in range(start, stop, step)]
                return Ragged.from_rows(rows, self.values.dtype)
            offsets = self.offsets[start : max(start, stop) + 1]
            return Ragged(self.values[offsets[0] : offsets[-1]], offsets - offsets[0])
        if not -len(self) <= index < len(self):
            raise IndexError(f"index: wanted a row of {len(self)}, got {index}")
        index %= len(self)
        return self.values[self.offsets[index] : self.offsets[index + 1]]

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield the rows in order, each a view of `values`."""
        places = self.offsets.tolist()
        for start, stop in zip(places[:-1], places[1:], strict=True):
            yield self.values[start:stop]

    def __eq__(self, other: object) -> bool:
        """Return whether the other is a `Ragged` of the same rows."""
        if not isinstance(other, Ragged):
            return NotImplemented
        same_rows = np.array_equal(self.offsets, other.offsets)
        return same_rows and np.array_equal(self.values, other.values)

    __hash__ = None  # pyright: ignore[reportAssignmentType]  # its arrays can change
