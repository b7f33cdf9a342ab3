"""Static key-value cache: keys and values of earlier tokens for later ones to attend to.

Takes the keys and values of new tokens, gives those of all tokens so far. The memory is laid out
once. Every row has its own length, so prompts of unequal length share a batch without padding
between prompt and continuation. What rows begin with in common is kept once.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cm3_model.appending import Append
from cm3_model.shared_prefixes import Layers, SharedPrefixes, pays, unshared


class KVCache:
    """Keys and values of `num_layers` layers for `batch_size` rows of up to `length` tokens."""

    def __init__(
        self,
        *,
        num_layers: int,
        batch_size: int,
        num_heads: int,
        length: int,
        head_width: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        shares_prefixes: bool = False,
    ) -> None:
        """Lay out the memory.

        With `shares_prefixes`, rows that `select_rows` repeats become the prefix of their copies,
        where that pays.
        """
        self.shares_prefixes = shares_prefixes
        self.shared = unshared(batch_size, torch.device(device))
        """What rows begin with, ahead of what `layers` have."""
        self.capacity = length
        """Tokens that fit in a row, its prefix included."""
        shape = (batch_size, num_heads, length, head_width)

        # Zeros, not empty memory: a masked slot has weight 0, and 0 * NaN would still be NaN.
        def zeros() -> Tensor:
            return torch.zeros(shape, device=device, dtype=dtype)

        # memory for B rows or more, of which `layers` and `places` show the first B
        self._memory: Layers = [(zeros(), zeros()) for _ in range(num_layers)]
        self._places = torch.zeros((batch_size, length), device=device, dtype=torch.long)
        self.layers: Layers = list(self._memory)
        """Keys and values of every layer, prefixes left out."""
        self.places = self._places
        """Place (B, L) in its picture of each token, for a decoder that asks for it."""
        self.lengths = torch.zeros(batch_size, device=device, dtype=torch.long)
        # The longest of `lengths` as an int, and of what rows have behind their prefixes: known
        # without asking the device in every step.
        self.longest = self.longest_own = 0

    @property
    def keys(self) -> Tensor:
        """Copy of all keys, (layers, B, H, L, W)."""
        return torch.stack([self.whole(layer, self.capacity)[0] for layer in self._numbers])

    @property
    def values(self) -> Tensor:
        """Copy of all values, (layers, B, H, L, W)."""
        return torch.stack([self.whole(layer, self.capacity)[1] for layer in self._numbers])

    @property
    def batch_size(self) -> int:
        """Number of rows."""
        return self.layers[0][0].shape[0]

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values, prefixes included."""
        layers = [*self._memory, *(layer for prefix in self.shared.prefixes for layer in prefix)]
        return sum(key.nbytes + value.nbytes for key, value in layers)

    def whole(self, layer: int, end: int) -> tuple[Tensor, Tensor]:
        """Return a layer's keys and values (B, H, end, W), prefixes before what rows have own."""
        keys, values = self.layers[layer]
        if not self.shared:
            return keys[:, :, :end], values[:, :, :end]
        found = keys.new_zeros((2, *keys.shape[:2], end, keys.shape[3]))
        for rows, *prefix in self.shared.layer(layer):
            size = prefix[0].shape[1]
            for part, start, own in zip(found, prefix, (keys, values), strict=True):
                part[rows, :, :size] = start
                part[rows, :, size:] = own[rows, :, : end - size]
        for row in self.shared.without:
            for part, own in zip(found, (keys, values), strict=True):
                part[row] = own[row, :, :end]
        return found[0], found[1]

    def append(self, new_lengths: Tensor, width: int) -> Append:
        """Plan to append `new_lengths` (B,) tokens, right-padded to `width` columns.

        Raises:
            ValueError: If a row would not fit.
        """
        new = Append(self, new_lengths, width)
        self._check_room(new.end)
        return new

    def append_one(self) -> int:
        """Return how far one more token makes `layers` reach; never wait for the device.

        Raises:
            ValueError: If the longest row is full.
        """
        self._check_room(self.longest + 1)
        return self.longest_own + 1

    def count_one(self) -> None:
        """Count one new token in every row, once every layer is written."""
        self.lengths = self.lengths + 1
        self.longest += 1
        self.longest_own += 1

    def reset(self) -> None:
        """Forget everything; the memory stays, but for what prefixes saved."""
        self._unshare()
        self.lengths = torch.zeros_like(self.lengths)
        self.measure()

    def rewind(self, lengths: Tensor) -> None:
        """Shorten every row to `lengths` (B,) and forget the rest.

        Raises:
            ValueError: If a length is negative or above the row's own.
        """
        lengths = lengths.to(self.lengths, copy=True)
        if lengths.shape != self.lengths.shape or not bool(
            ((lengths >= 0) & (lengths <= self.lengths)).all()
        ):
            raise ValueError(
                f"lengths: wanted one per row, from 0 to {self.lengths.tolist()}, "
                f"got {lengths.tolist()}"
            )
        if bool((lengths < self.shared.lengths).any()):
            self._unshare()
        self.lengths = lengths
        self.measure()

    def select_rows(self, rows: Tensor) -> None:
        """Make old row `rows[i]` the new row i; any number, any order, repeats allowed.

        Where rows only leave, and the last ones take their places, no others are moved, and the
        memory stays for rows that `join`.
        """
        chosen = rows.tolist()
        lengths = self.lengths.tolist()
        index = rows.to(self.lengths.device)
        moved = [(new, old) for new, old in enumerate(chosen) if new != old]
        if self.shares_prefixes and not self.shared and pays(chosen, lengths):
            self._share(chosen, lengths)
        else:
            if all(old >= len(chosen) for _, old in moved):
                for new, old in moved:
                    for part in (*self._parts(), self._places):
                        part[new] = part[old]
            else:
                self._memory = [(key[index], value[index]) for key, value in self.layers]
                self._places = self.places[index]
            self.shared = self.shared.select(chosen)
            self._narrow(len(chosen))
        self.lengths = self.lengths[index]
        self.measure()

    def join(self, other: KVCache) -> None:
        """Take the rows of another cache behind one's own, and as much room as it has per row."""
        first, rows = self.batch_size, self.batch_size + other.batch_size
        self.capacity = max(self.capacity, other.capacity)
        shared = self.shared.join(other.shared)
        own, room = self.capacity - shared.shortest, len(self._places)
        grows = own > self._memory[0][0].shape[2] or self.capacity > self._places.shape[1]
        if rows > room or grows:
            # doubled, so that rows that come one by one are seldom copied
            self._grow(max(rows, 2 * room if rows > room else room), own)
        self.shared = shared
        self._narrow(rows)
        end = other.longest_own
        for (key, value), (new_key, new_value) in zip(self.layers, other.layers, strict=True):
            key[first:, :, :end] = new_key[:, :, :end]
            value[first:, :, :end] = new_value[:, :, :end]
        self.places[first:, : other.longest] = other.places[:, : other.longest]
        self.lengths = torch.cat([self.lengths, other.lengths])
        self.measure()

    @property
    def _numbers(self) -> range:
        return range(len(self.layers))

    def measure(self) -> None:
        """Find the longest of `lengths`, and of what rows have behind their prefixes."""
        self.longest = int(self.lengths.max())
        self.longest_own = int((self.lengths - self.shared.lengths).max())

    def _share(self, rows: Sequence[int], lengths: Sequence[int]) -> None:
        """Make each row the prefix of its copies, which have nothing of their own yet."""

        def prefix(row: int) -> Layers:
            end = lengths[row]
            return [(k[row, :, :end].clone(), v[row, :, :end].clone()) for k, v in self.layers]

        # rows that none continues are not copied
        order = sorted(set(rows))
        places = {row: place for place, row in enumerate(order)}
        of_row = [places[row] for row in rows]
        prefixes = [prefix(row) for row in order]
        self.shared = SharedPrefixes(prefixes, of_row, self.lengths.device)
        self._places = self.places[torch.tensor(rows, device=self.lengths.device)]
        own = max(1, self.capacity - self.shared.shortest)
        old = self.layers[0][0]
        shape = (len(rows), old.shape[1], own, old.shape[3])
        self._memory = [(old.new_zeros(shape), old.new_zeros(shape)) for _ in self.layers]
        self._narrow(len(rows))

    def _unshare(self) -> None:
        """Give each row a copy of its prefix."""
        if self.shared:
            self._memory = [self.whole(layer, self.capacity) for layer in self._numbers]
            self.shared = unshared(self.batch_size, self.lengths.device)
            self._places = self.places
            self._narrow(len(self.lengths))
            self.measure()

    def _parts(self) -> list[Tensor]:
        """Return the memory of all keys and values, each (rows, H, L, W)."""
        return [part for layer in self._memory for part in layer]

    def _narrow(self, rows: int) -> None:
        """Show the first rows of the memory."""
        self.layers = [(key[:rows], value[:rows]) for key, value in self._memory]
        self.places = self._places[:rows]

    def _grow(self, rows: int, own: int) -> None:
        """Lay out larger memory, and copy what the old one shows."""
        shown = self.batch_size

        def larger(old: Tensor, end: int, length: int) -> Tensor:
            new = old.new_zeros((rows, old.shape[1], length, old.shape[3]))
            new[:shown, :, :end] = old[:shown, :, :end]
            return new

        self._memory = [
            (larger(key, self.longest_own, own), larger(value, self.longest_own, own))
            for key, value in self._memory
        ]
        places = self._places.new_zeros((rows, self.capacity))
        places[:shown, : self.longest] = self._places[:shown, : self.longest]
        self._places = places

    def _check_room(self, end: int) -> None:
        if end > self.capacity:
            raise ValueError(
                f"cache: wanted room for {end} tokens in the longest row, got {self.capacity}"
            )
