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
from cm3_model.memory_pool import Layout, Memory, MemoryPool, laid_out
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
        pool: MemoryPool | None = None,
    ) -> None:
        """Lay out the memory.

        With `shares_prefixes`, rows that `select_rows` repeats become the prefix of their copies,
        where that pays. With a `pool` the memory comes from there, for a power of two of rows.
        """
        self.shares_prefixes = shares_prefixes
        self._pool = pool
        self.shared = unshared(batch_size, torch.device(device))
        """What rows begin with, ahead of what `layers` have."""
        self.capacity = length
        """Tokens that fit in a row, its prefix included."""
        self._kind = num_layers, num_heads, head_width, torch.device(device), dtype
        self.memory = self._lay_out(batch_size, length)
        """Memory for B rows or more, of which `layers` and `places` show the first B."""
        self.layers: Layers = []
        """Keys and values of every layer, prefixes left out."""
        self.places = self.memory.places
        """Place (B, L) in its picture of each token, for a decoder that asks for it."""
        self._narrow(batch_size)
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
        layers = [
            *self.memory.layers,
            *(layer for prefix in self.shared.prefixes for layer in prefix),
        ]
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

    def append_evenly(self, count: int) -> int:
        """Return how far `count` more tokens make `layers` reach; never wait for the device.

        Raises:
            ValueError: If the longest row has no room for them.
        """
        self._check_room(self.longest + count)
        return self.longest_own + count

    def count_new(self, count: int) -> None:
        """Count `count` new tokens in every row, once every layer is written."""
        self.lengths = self.lengths + count
        self.longest += count
        self.longest_own += count

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
        self._check_each("lengths", lengths)
        self._shorten(lengths)

    def forget(self, counts: Tensor) -> None:
        """Forget the last `counts` (B,) tokens of the rows.

        Raises:
            ValueError: If a row does not have as many.
        """
        counts = counts.to(self.lengths)
        self._check_each("counts", counts)
        self._shorten(self.lengths - counts)

    def _check_each(self, name: str, numbers: Tensor) -> None:
        if numbers.shape != self.lengths.shape or not bool(
            ((numbers >= 0) & (numbers <= self.lengths)).all()
        ):
            raise ValueError(
                f"{name}: wanted one per row, from 0 to {self.lengths.tolist()}, "
                f"got {numbers.tolist()}"
            )

    def _shorten(self, lengths: Tensor) -> None:
        if bool((lengths < self.shared.lengths).any()):
            self._unshare()
        self.lengths = lengths
        self.measure()

    def select_rows(self, rows: Tensor) -> None:
        """Make old row `rows[i]` the new row i; any number, any order, repeats allowed.

        Where rows only leave, and the last ones take their places, no others are moved, and the
        memory stays for rows that `join`; but memory of a pool, all rows of which a compiled step
        reads, is exchanged for smaller one.
        """
        chosen = rows.tolist()
        lengths = self.lengths.tolist()
        index = rows.to(self.lengths.device)
        moved = [(new, old) for new, old in enumerate(chosen) if new != old]
        if self.shares_prefixes and not self.shared and pays(chosen, lengths):
            self._share(chosen, lengths)
        else:
            fewer = self._pool is not None and 2 * len(chosen) <= len(self.memory.places)
            if not fewer and all(old >= len(chosen) for _, old in moved):
                for new, old in moved:
                    for part in self._parts():
                        part[new] = part[old]
            else:
                self._copy(index, self.memory.layers[0][0].shape[2])
            self.shared = self.shared.select(chosen)
            self._narrow(len(chosen))
        self.lengths = self.lengths[index]
        self.measure()

    def join(self, other: KVCache) -> None:
        """Take the rows of another cache behind one's own, and as much room as it has per row."""
        first, rows = self.batch_size, self.batch_size + other.batch_size
        self.capacity = max(self.capacity, other.capacity)
        shared = self.shared.join(other.shared)
        own, room = self.capacity - shared.shortest, len(self.memory.places)
        grows = own > self.memory.layers[0][0].shape[2] or self.capacity > self.places.shape[1]
        if rows > room or grows:
            # doubled, so that rows that come one by one are seldom copied
            every = torch.arange(first, device=self.lengths.device)
            self._copy(every, own, max(rows, 2 * room if rows > room else room))
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
        numbers = {row: number for number, row in enumerate(order)}
        of_row = [numbers[row] for row in rows]
        prefixes = [prefix(row) for row in order]
        self.shared = SharedPrefixes(prefixes, of_row, self.lengths.device)
        index = torch.tensor(rows, device=self.lengths.device)
        places = self.places[index]
        self.memory = self._lay_out(len(rows), max(1, self.capacity - self.shared.shortest))
        self.memory.places[: len(rows)] = places
        self._narrow(len(rows))

    def _unshare(self) -> None:
        """Give each row a copy of its prefix."""
        if self.shared:
            layers = [self.whole(layer, self.capacity) for layer in self._numbers]
            self.memory = Memory(layers=layers, places=self.places)
            self.shared = unshared(self.batch_size, self.lengths.device)
            self._narrow(len(self.lengths))
            self.measure()

    def all_rows(self) -> tuple[Layers, Tensor, Tensor]:
        """Return layers, places and lengths of all rows that there is memory for.

        Those behind the cache's own have length 0.
        """
        lengths, behind = self.lengths, len(self.memory.places) - len(self.lengths)
        if behind:
            lengths = torch.nn.functional.pad(lengths, (0, behind))
        return self.memory.layers, self.memory.places, lengths

    def _lay_out(self, rows: int, own: int) -> Memory:
        """Make memory for some rows of `own` tokens behind their prefixes."""
        layers, heads, width, device, dtype = self._kind
        if self._pool is not None:
            rows = 1 << (rows - 1).bit_length()
        layout = Layout(
            num_layers=layers,
            shape=(rows, heads, own, width),
            places=self.capacity,
            device=device,
            dtype=dtype,
        )
        return laid_out(layout) if self._pool is None else self._pool.lend(self, layout)

    def _parts(self) -> list[Tensor]:
        """Return the memory of all keys, values and places."""
        return [self.memory.places, *(part for layer in self.memory.layers for part in layer)]

    def _narrow(self, rows: int) -> None:
        """Show the first rows of the memory."""
        self.layers = [(key[:rows], value[:rows]) for key, value in self.memory.layers]
        self.places = self.memory.places[:rows]

    def _copy(self, index: Tensor, own: int, room: int | None = None) -> None:
        """Lay out other memory for `room` rows of `own` tokens, and copy rows of the old one."""
        rows, old, end = len(index), self.memory, self.longest_own
        self.memory = self._lay_out(room or rows, own)
        for new_layer, layer in zip(self.memory.layers, old.layers, strict=True):
            for new, part in zip(new_layer, layer, strict=True):
                new[:rows, :, :end] = part[index, :, :end]
        self.memory.places[:rows, : self.longest] = old.places[index, : self.longest]
        if self._pool is not None:
            self._pool.give_back(old)

    def _check_room(self, end: int) -> None:
        if end > self.capacity:
            raise ValueError(
                f"cache: wanted room for {end} tokens in the longest row, got {self.capacity}"
            )
