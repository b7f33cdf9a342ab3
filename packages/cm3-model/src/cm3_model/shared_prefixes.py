"""The tokens that rows of a cache begin with in common: kept once, attended to by all of them.

Candidates of a prompt share it, and the streams of guidance share their retrieved documents. What
rows add of their own is in the cache's memory.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Layers = list[tuple[Tensor, Tensor]]
"""Keys and values of every layer, each (B, H, L, W); of a prefix, each (H, P, W)."""
Rows = slice | Tensor
"""Some rows of a batch."""
WORTH = 1024
"""Tokens kept once instead of several times for which sharing pays: with fewer, the attention to
what is shared costs more time than it saves."""


class SharedPrefixes:
    """The prefix with which each of B rows begins, if any."""

    def __init__(
        self, prefixes: Sequence[Layers], of_row: Sequence[int | None], device: torch.device
    ) -> None:
        """Take prefixes, and the place among them of each row's."""
        used = sorted({number for number in of_row if number is not None})
        places = {number: place for place, number in enumerate(used)}
        self.prefixes = [prefixes[number] for number in used]
        self.of_row = [None if number is None else places[number] for number in of_row]
        sizes = [prefix[0][0].shape[1] for prefix in self.prefixes]
        lengths = [0 if place is None else sizes[place] for place in self.of_row]
        self.shortest = min(lengths)
        """Tokens that no row needs room for."""
        self.lengths = torch.tensor(lengths, device=device)
        """Tokens (B,) of each row's prefix, 0 without one."""
        self.without = [row for row, place in enumerate(self.of_row) if place is None]
        """Rows that have none."""
        self._rows = [
            rows_of([row for row, place in enumerate(self.of_row) if place == number], device)
            for number in range(len(self.prefixes))
        ]

    def __bool__(self) -> bool:
        """Tell whether a row has a prefix."""
        return bool(self.prefixes)

    def layer(self, number: int) -> list[tuple[Rows, Tensor, Tensor]]:
        """Return for each prefix its rows, and a layer's keys and values (H, P, W)."""
        parts = zip(self._rows, self.prefixes, strict=True)
        return [(rows, *prefix[number]) for rows, prefix in parts]

    def select(self, rows: Sequence[int]) -> SharedPrefixes:
        """Return the same of rows: old row `rows[i]` is the new row i."""
        of_row = [self.of_row[row] for row in rows]
        return SharedPrefixes(self.prefixes, of_row, self.lengths.device)

    def join(self, other: SharedPrefixes) -> SharedPrefixes:
        """Return the same of these rows and, behind them, another's."""
        first = len(self.prefixes)
        behind = [None if place is None else first + place for place in other.of_row]
        prefixes = [*self.prefixes, *other.prefixes]
        return SharedPrefixes(prefixes, [*self.of_row, *behind], self.lengths.device)


def unshared(count: int, device: torch.device) -> SharedPrefixes:
    """Return what `count` rows without prefixes have."""
    return SharedPrefixes([], [None] * count, device)


def pays(rows: Sequence[int], lengths: Sequence[int]) -> bool:
    """Tell whether rows of these lengths had better be shared when repeated as `rows` says."""
    return sum(lengths[row] for row in rows) - sum(lengths[row] for row in set(rows)) >= WORTH


def rows_of(rows: Sequence[int], device: torch.device) -> Rows:
    """Return rows as a slice where they are neighbours, which copies nothing."""
    if list(rows) == list(range(rows[0], rows[0] + len(rows))):
        return slice(rows[0], rows[0] + len(rows))
    return torch.tensor(rows, device=device)
