"""Static key-value cache: what earlier tokens have left behind for later ones to attend to.

Takes the keys and values of new tokens, gives those of all tokens so far. The memory is laid out
once; every row has its own length, so prompts of unequal length share a batch without padding
between prompt and continuation.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


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
        shape = (num_layers, batch_size, num_heads, length, head_width)
        # Zeros, not empty memory: a masked slot has weight 0, and 0 * NaN would still be NaN.
        self.keys = torch.zeros(shape, device=device, dtype=dtype)
        self.values = torch.zeros(shape, device=device, dtype=dtype)
        self.lengths = torch.zeros(batch_size, device=device, dtype=torch.long)
        # The longest of `lengths` as an int: known without asking the device in every step.
        self.longest = 0

    @property
    def batch_size(self) -> int:
        """Number of rows."""
        return self.keys.shape[1]

    @property
    def capacity(self) -> int:
        """Tokens that fit in a row."""
        return self.keys.shape[3]

    def append(self, new_lengths: Tensor, width: int) -> Append:
        """Plan to append `new_lengths` (B,) tokens, right-padded to `width` columns.

        Raises:
            ValueError: if a row would not fit.
        """
        lengths = self.lengths + new_lengths
        end = int(lengths.max())
        self._check_room(end)
        column = torch.arange(width, device=self.lengths.device)
        positions = self.lengths[:, None] + column  # (B, T)
        rows, columns = (column < new_lengths[:, None]).nonzero(as_tuple=True)
        slots = positions[rows, columns]
        visible = None if self.longest == 0 else _visible(positions, end)
        return Append(self, positions, rows, columns, slots, end, lengths, visible)

    def append_one(self) -> Append:
        """Plan to append one token to every row; never waits for the device."""
        end = self.longest + 1
        self._check_room(end)
        rows = torch.arange(self.batch_size, device=self.lengths.device)
        positions = self.lengths[:, None]  # (B, 1)
        columns = torch.zeros_like(rows)
        visible = _visible(positions, end)
        return Append(self, positions, rows, columns, self.lengths, end, self.lengths + 1, visible)

    def reset(self) -> None:
        """Forget everything; the memory stays."""
        self.lengths = torch.zeros_like(self.lengths)
        self.longest = 0

    def rewind(self, lengths: Tensor) -> None:
        """Shorten every row to `lengths` (B,); what lay behind is forgotten."""
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
        """Make old row `rows[i]` row i; any number, any order, repeats allowed."""
        rows = rows.to(self.lengths)
        self.keys, self.values = self.keys[:, rows], self.values[:, rows]
        self.lengths = self.lengths[rows]
        self.longest = int(self.lengths.max())

    def _check_room(self, end: int) -> None:
        if end > self.capacity:
            raise ValueError(
                f"cache: wanted room for {end} tokens in the longest row, got {self.capacity}"
            )


@dataclass(frozen=True)
class Append:
    """Where the new tokens of one forward pass go, and what they may see.

    Two rows hold 2 and 4 tokens and get 3 and 1 new ones, right-padded to 3 columns:

        positions  [[2, 3, 4], [4, 5, 6]]
        rows       [0, 0, 0, 1]    the tokens that are not padding,
        columns    [0, 1, 2, 0]    by row and column,
        slots      [2, 3, 4, 4]    and the cache slot that each is written to
        end        5               no row reaches further

    The key in slot j is visible to a query at position i if j <= i. A row's slots behind its
    length hold nothing of its own, but they lie behind every one of its queries too, and are
    written before a query gets there. So right padding needs no mask.
    """

    cache: KVCache
    positions: Tensor
    """(B, T) positions of the new tokens, padding included."""
    rows: Tensor
    """(N,) row of each token that is not padding."""
    columns: Tensor
    """(N,) its column."""
    slots: Tensor
    """(N,) the slot it goes to."""
    end: int
    """Length of the longest row after the pass; attention reads no further."""
    lengths: Tensor
    """(B,) lengths after the pass."""
    visible: Tensor | None
    """(B, 1, T, end) what each query may attend to; None if the cache was empty."""

    def write(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Store one layer's new keys and values (B, H, T, W); give what to attend to.

        With an empty cache that is just what came, under a plain causal mask; else everything
        that the cache holds, (B, H, end, W), under `visible`.
        """
        keys, values = self.cache.keys[layer], self.cache.values[layer]  # (B, H, L, W)
        keys[self.rows, :, self.slots] = key[self.rows, :, self.columns].to(keys.dtype)
        values[self.rows, :, self.slots] = value[self.rows, :, self.columns].to(values.dtype)
        if self.visible is None:
            return key, value
        return keys[:, :, : self.end], values[:, :, : self.end]

    def commit(self) -> None:
        """Count the new tokens, once every layer is written; until then the rows lack them."""
        self.cache.lengths = self.lengths
        self.cache.longest = self.end


def _visible(positions: Tensor, end: int) -> Tensor:
    """(B, 1, T, end): slots that queries at `positions` (B, T) may attend to."""
    slots = torch.arange(end, device=positions.device)
    return (slots <= positions[..., None])[:, None]
