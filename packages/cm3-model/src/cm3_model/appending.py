"""Where new tokens go in a cache, and what they may see: any number for each row, or as many.

A pass of the decoder makes an `Append` or, to decode, an `AppendEvenly`. Its layers write new keys
and values to it and get those to attend to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cm3_model.attention import picture_places
from cm3_model.shared_prefixes import Layers, Rows, SharedPrefixes

if TYPE_CHECKING:
    from cm3_model.kv_cache import KVCache


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
        self.dtype = cache.layers[0][0].dtype
        self.lengths = cache.lengths + new_lengths
        self.end = int(self.lengths.max())
        column = torch.arange(width, device=self.lengths.device)
        self.positions = cache.lengths[:, None] + column
        """(B, T) positions of the new tokens, padding included."""
        self.rows, self.columns = (column < new_lengths[:, None]).nonzero(as_tuple=True)  # 2 x (N,)
        own = self.positions - cache.shared.lengths[:, None]
        self.slots = own[self.rows, self.columns]  # (N,)
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
        return self.cache.whole(layer, self.end)

    def prefixes(self, layer: int) -> list[tuple[Rows, Tensor, Tensor]]:
        """Return none: `write` has them."""
        return []

    def place(self, codes: Tensor) -> Tensor:
        """Return the places (B, T) of the new tokens, of which `codes` are image codes; store."""
        before = last_places(self.cache.places, self.cache.lengths)
        places = picture_places(codes, -before)
        at = self.positions[self.rows, self.columns]
        self.cache.places[self.rows, at] = places[self.rows, self.columns]
        return places

    def commit(self) -> None:
        """Count the new tokens, once every layer is written; until then the rows lack them."""
        self.cache.lengths = self.lengths
        self.cache.measure()


class AppendEvenly:
    """Where as many new tokens of every row go; of tensors alone, so that it can be compiled."""

    def __init__(
        self,
        layers: Layers,
        places: Tensor,
        lengths: Tensor,
        count: int,
        end: int,
        shared: SharedPrefixes | None = None,
    ) -> None:
        """Plan to write `count` tokens behind `lengths` (B,), and to attend to `end` slots.

        With `shared`, the first slot is behind a row's prefix.
        """
        self.layers, self.places, self.end = layers, places, end
        self.dtype = layers[0][0].dtype
        self.shared = shared or None
        device = lengths.device
        self.rows = torch.arange(len(lengths), device=device)[:, None]  # (B, 1)
        self.lengths = lengths
        self.positions = lengths[:, None] + torch.arange(count, device=device)  # (B, T)
        self.slots = self.positions
        if self.shared is not None:
            self.slots = self.positions - self.shared.lengths[:, None]
        self.visible = visible_slots(self.slots, end)  # (B, 1, T, end)

    def write(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Store one layer's new keys and values (B, H, T, W); return those to attend to."""
        keys, values = self.layers[layer]  # 2 x (B, H, L, W)
        # Not `scatter_`, which on a CPU converts all of a bfloat16 cache there and back.
        keys[self.rows, :, self.slots] = key.transpose(1, 2).to(keys.dtype)
        values[self.rows, :, self.slots] = value.transpose(1, 2).to(values.dtype)
        return keys[:, :, : self.end], values[:, :, : self.end]

    def prefixes(self, layer: int) -> list[tuple[Rows, Tensor, Tensor]]:
        """Return a layer's prefixes and their rows."""
        return [] if self.shared is None else self.shared.layer(layer)

    def place(self, codes: Tensor) -> Tensor:
        """Return the places (B, T) of the new tokens, of which `codes` are image codes; store."""
        before = last_places(self.places, self.lengths)
        one = codes.shape[1] == 1  # the same, without a scan in every step
        places = (before + 1) * codes if one else picture_places(codes, -before)
        self.places[self.rows, self.positions] = places
        return places


def last_places(places: Tensor, lengths: Tensor) -> Tensor:
    """Return the places (B, 1) of the rows' last tokens, 0 for an empty row."""
    return places.gather(1, (lengths[:, None] - 1).clamp(min=0)) * (lengths > 0)[:, None]


def visible_slots(positions: Tensor, end: int) -> Tensor:
    """Mark the slots (B, 1, T, end) that queries at `positions` (B, T) may attend to."""
    slots = torch.arange(end, device=positions.device)
    return (slots <= positions[..., None])[:, None]
