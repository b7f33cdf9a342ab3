"""Pictures in the rows of Parquet files, read in order a few at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

BATCH = 16
"""Rows in memory at once."""


@dataclass(frozen=True)
class ParquetPicture:
    """A picture in a column of binary values, or of structs with `bytes`, as Hugging Face's are."""

    path: Path
    column: str
    row: int
    """Counted from 0, over all row groups."""

    def __call__(self) -> bytes:
        """Read it.

        Raises:
            OSError: The file is missing or cannot be read.
            ValueError: It is broken, or the row has no picture.
        """
        try:
            content = _column(self.path, self.column).at(self.row)
        except pa.ArrowException as error:
            raise ValueError(f"{self.path.name}: wanted a Parquet file, got: {error}") from None
        if isinstance(content, dict):
            content = content.get("bytes")
        if not isinstance(content, bytes) or not content:
            raise ValueError(f"{self.column}: wanted the bytes of a picture, got none")
        return content


@lru_cache(maxsize=4)
def _column(path: Path, column: str) -> _Column:
    return _Column(path, column)


class _Column:
    """A column that is asked for rows in order; going back reads the row group anew."""

    def __init__(self, path: Path, column: str) -> None:
        self._path, self._column = path, column
        self._file = pq.ParquetFile(path)
        sizes = (
            self._file.metadata.row_group(n).num_rows for n in range(self._file.num_row_groups)
        )
        self._ends = list(accumulate(sizes))
        self._rows: Iterator[Any] = iter(())
        self._group, self._next = -1, 0
        self._last: tuple[int, Any] = (-1, None)

    def at(self, row: int) -> Any:
        if self._last[0] == row:
            return self._last[1]
        group = next((n for n, end in enumerate(self._ends) if row < end), None)
        if group is None:
            raise ValueError(f"{self._path.name}: wanted a row {row}, got {self._ends[-1:]} rows")
        if group != self._group or row < self._next:
            start = self._ends[group - 1] if group else 0
            self._group, self._next, self._rows = group, start, self._read(group)
        for value in self._rows:
            self._next += 1
            if self._next > row:
                self._last = row, value
                return value
        raise ValueError(f"{self._path.name}: wanted a row {row}, got fewer")

    def _read(self, group: int) -> Iterator[Any]:
        for batch in self._file.iter_batches(BATCH, row_groups=[group], columns=[self._column]):
            yield from batch.column(0).to_pylist()
