"""Static key-value cache: keys and values of earlier tokens for later ones to attend to.

Takes the keys and values of new tokens, gives those of all tokens so far. The memory is laid out
once. Every row has its own length, so prompts of unequal length share a batch without padding
between prompt and continuation.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cm3_model.attention import picture_places

Layers = list[tuple[Tensor, Tensor]]
"""Keys and values of every layer, each (B, H, L, W)."""


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
    ) -> None:
        """Lay out the memory."""
        shape = (batch_size, num_heads, length, head_width)

        # Zeros, not empty memory: a masked slot has weight 0, and 0 * NaN would still be NaN.
        def zeros() -> Tensor:
            return torch.zeros(shape, device=device, dtype=dtype)

        # memory for B rows or more, of which `layers` and `places` show the first B
        self._memory: Layers = [(zeros(), zeros()) for _ in range(num_layers)]
        self._places = torch.zeros((batch_size, length), device=device, dtype=torch.long)
        self.layers: Layers = list(self._memory)
        """Keys and values of every layer."""
        self.places = self._places
        """Place (B, L) in its picture of each slot's token, for a decoder that asks for it."""
        self.lengths = torch.zeros(batch_size, device=device, dtype=torch.long)
        # The longest of `lengths` as an int: known without asking the device in every step.
        self.longest = 0

    @property
    def keys(self) -> Tensor:
        """Copy of all keys, (layers, B, H, L, W)."""
        return torch.stack([key for key, _ in self.layers])

    @property
    def values(self) -> Tensor:
        """Copy of all values, (layers, B, H, L, W)."""
        return torch.stack([value for _, value in self.layers])

    @property
    def batch_size(self) -> int:
        """Number of rows."""
        return self.layers[0][0].shape[0]

    @property
    def capacity(self) -> int:
        """Tokens that fit in a row."""
        return self.layers[0][0].shape[2]

    def append(self, new_lengths: Tensor, width: int) -> Append:
        """Plan to append `new_lengths` (B,) tokens, right-padded to `width` columns.

        Raises:
            ValueError: If a row would not fit.
        """
        new = Append(self, new_lengths, width)
        self._check_room(new.end)
        return new

    def append_one(self) -> int:
        """Return the longest row's length with one more token; never wait for the device.

        Raises:
            ValueError: If that row is full.
        """
        self._check_room(self.longest + 1)
        return self.longest + 1

    def count_one(self) -> None:
        """Count one new token in every row, once every layer is written."""
        self.lengths = self.lengths + 1
        self.longest += 1

    def reset(self) -> None:
        """Forget everything; the memory stays."""
        self.lengths = torch.zeros_like(self.lengths)
        self.longest = 0

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
        self.lengths = lengths
        self.longest = int(lengths.max())

    def select_rows(self, rows: Tensor) -> None:
        """Make old row `rows[i]` the new row i; any number, any order, repeats allowed.

        Where rows only leave, and the last ones take their places, no others are moved, and the
        memory stays for rows that `join`.
        """
        chosen = rows.tolist()
        moved = [(new, old) for new, old in enumerate(chosen) if new != old]
        if all(old >= len(chosen) for _, old in moved):
            for new, old in moved:
                for part in (*self._parts(), self._places):
                    part[new] = part[old]
            self._narrow(len(chosen))
        else:
            index = rows.to(self.lengths.device)
            self._memory = [(key[index], value[index]) for key, value in self.layers]
            self._places = self.places[index]
            self._narrow(len(chosen))
        self.lengths = self.lengths[rows.to(self.lengths)]
        self.longest = int(self.lengths.max())

    def join(self, other: KVCache) -> None:
        """Take the rows of another cache behind one's own, and as much room as it has per row."""
        first, rows = self.batch_size, self.batch_size + other.batch_size
        capacity, room = max(self.capacity, other.capacity), len(self._places)
        if rows > room or capacity > self.capacity:
            # doubled, so that rows that come one by one are seldom copied
            self._grow(max(rows, 2 * room if rows > room else room), capacity)
        self._narrow(rows)
        for (key, value), (new_key, new_value) in zip(self.layers, other.layers, strict=True):
            key[first:, :, : other.longest] = new_key[:, :, : other.longest]
            value[first:, :, : other.longest] = new_value[:, :, : other.longest]
        self.places[first:, : other.longest] = other.places[:, : other.longest]
        self.lengths = torch.cat([self.lengths, other.lengths])
        self.longest = max(self.longest, other.longest)

    def _parts(self) -> list[Tensor]:
        """Return the memory of all keys and values, each (rows, H, L, W)."""
        return [part for layer in self._memory for part in layer]

    def _narrow(self, rows: int) -> None:
        """Show the first rows of the memory."""
        self.layers = [(key[:rows], value[:rows]) for key, value in self._memory]
        self.places = self._places[:rows]

    def _grow(self, rows: int, length: int) -> None:
        """Lay out larger memory, and copy what the old one shows."""
        shown, end = self.batch_size, self.longest

        def larger(old: Tensor) -> Tensor:
            new = old.new_zeros((rows, old.shape[1], length, old.shape[3]))
            new[:shown, :, :end] = old[:shown, :, :end]
            return new

        self._memory = [(larger(key), larger(value)) for key, value in self._memory]
        places = self._places.new_zeros((rows, length))
        places[:shown, :end] = self._places[:shown, :end]
        self._places = places

    def _check_room(self, end: int) -> None:
        if end > self.capacity:
            raise ValueError(
                f"cache: wanted room for {end} tokens in the longest row, got {self.capacity}"
            )


class Append:
    """Where the new tokens of a prefill go, and what they may see.

    Two rows hold 2 and 4 tokens and get 3 and 1 new ones, right-padded to 3 columns:

        positions  [[2, 3, 4], [4, 5, 6]]
        rows       [0, 0, 0, 1]    the tokens that are not padding,
        columns    [0, 1, 2, 0]    by row and column,
        slots      [2, 3, 4, 4]    and the cache slot that each is written to
        end        5               no row reaches further

    The key in slot j is visible to a query at position i if j <= i. A row's slots beyond its
    length hold nothing of its own, but they lie beyond all of its queries, too, and are written
    before a query gets there. So right padding needs no mask.
    """

    def __init__(self, cache: KVCache, new_lengths: Tensor, width: int) -> None:
        """Plan to append `new_lengths` (B,) tokens, right-padded to `width` columns."""
        self.cache = cache
        self.lengths = cache.lengths + new_lengths
        self.end = int(self.lengths.max())
        column = torch.arange(width, device=self.lengths.device)
        self.positions = cache.lengths[:, None] + column
        """(B, T) positions of the new tokens, padding included."""
        self.rows, self.columns = (column < new_lengths[:, None]).nonzero(as_tuple=True)  # 2 x (N,)
        self.slots = self.positions[self.rows, self.columns]  # (N,)
        empty = cache.longest == 0
        self.visible = None if empty else visible_slots(self.positions, self.end)
        """Slots that each query may attend to (B, 1, T, end); None if the cache was empty."""

    def write(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Store one layer's new keys and values (B, H, T, W); return those to attend to.

        With an empty cache these are the new ones, under a plain causal mask; otherwise all that
        the cache holds, (B, H, end, W), under `visible`.
        """
        keys, values = self.cache.layers[layer]  # 2 x (B, H, L, W)
        keys[self.rows, :, self.slots] = key[self.rows, :, self.columns].to(keys.dtype)
        values[self.rows, :, self.slots] = value[self.rows, :, self.columns].to(values.dtype)
        if self.visible is None:
            return key, value
        return keys[:, :, : self.end], values[:, :, : self.end]

    def place(self, codes: Tensor) -> Tensor:
        """Return the places (B, T) of the new tokens, of which `codes` are image codes; store."""
        before = last_places(self.cache.places, self.cache.lengths)
        places = picture_places(codes, -before)
        self.cache.places[self.rows, self.slots] = places[self.rows, self.columns]
        return places

    def commit(self) -> None:
        """Count the new tokens, once every layer is written; until then the rows lack them."""
        self.cache.lengths = self.lengths
        self.cache.longest = self.end


class AppendOne:
    """Where one new token per row goes; made of tensors alone, so that a step can be compiled."""

    def __init__(self, layers: Layers, places: Tensor, lengths: Tensor, end: int) -> None:
        """Plan to write behind `lengths` (B,) and to attend to the first `end` slots."""
        self.layers, self.places, self.end, self.slots = layers, places, end, lengths
        self.rows = torch.arange(len(lengths), device=lengths.device)
        self.positions = lengths[:, None]  # (B, 1)
        self.visible = visible_slots(self.positions, end)  # (B, 1, 1, end)
        keys = layers[0][0]
        # On a CPU, attention with one query in bfloat16 takes three times as long as with a
        # float32 copy of the keys. All layers share the copy's memory.
        reduced = keys.device.type == "cpu" and keys.dtype in (torch.bfloat16, torch.float16)
        self.copy = (
            torch.empty(keys[:, :, :end].shape) if reduced and not torch.is_grad_enabled() else None
        )

    def write(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Store one layer's new key and value (B, H, 1, W); return those to attend to."""
        keys, values = self.layers[layer]  # 2 x (B, H, L, W)
        # Not `scatter_`, which on a CPU converts all of a bfloat16 cache there and back.
        keys[self.rows, :, self.slots] = key[:, :, 0].to(keys.dtype)
        values[self.rows, :, self.slots] = value[:, :, 0].to(values.dtype)
        keys, values = keys[:, :, : self.end], values[:, :, : self.end]
        return (keys if self.copy is None else self.copy.copy_(keys)), values

    def place(self, codes: Tensor) -> Tensor:
        """Return the places (B, 1) of the new tokens, of which `codes` are image codes; store."""
        places = (last_places(self.places, self.slots) + 1) * codes
        self.places[self.rows, self.slots] = places[:, 0]
        return places


def last_places(places: Tensor, lengths: Tensor) -> Tensor:
    """Return the places (B, 1) of the rows' last tokens, 0 for an empty row."""
    return places.gather(1, (lengths[:, None] - 1).clamp(min=0)) * (lengths > 0)[:, None]


def visible_slots(positions: Tensor, end: int) -> Tensor:
    """Mark the slots (B, 1, T, end) that queries at `positions` (B, T) may attend to."""
    slots = torch.arange(end, device=positions.device)
    return (slots <= positions[..., None])[:, None]
