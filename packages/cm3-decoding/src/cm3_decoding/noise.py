"""Random numbers that are decided by a row's seed, the step and the id, and by nothing else.

Takes seeds, gives exponential numbers. A generator would give a number that depends on how many
were drawn before it, so on the batch; here each is a hash of its own place, the same on every
device. The keys come from splitmix64 (Steele et al., 2014), the numbers from a 32-bit hash of the
form of murmur3's last step, with a key between its rounds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from cm3_decoding.whole_numbers import whole


class Noise:
    """Exponential numbers for B rows, up to `steps` steps, and ids from `start` to `stop - 1`."""

    def __init__(
        self, seeds: Sequence[int], steps: int, start: int, stop: int, device: torch.device | str
    ) -> None:
        """Make the keys of all steps, 8 bytes each; seeds are numbers of up to 64 bits."""
        keys = _split_mix(_split_mix(_int64(seeds)[:, None]) + torch.arange(steps) * _GOLDEN)
        self._first, self._second = keys.to(torch.int32), (keys >> 32).to(torch.int32)  # (B, steps)
        self._first, self._second = self._first.to(device), self._second.to(device)
        self._span, self._ids = (start, stop), _of_ids(start, stop, device)

    def select_rows(self, rows: Tensor) -> None:
        """Make old row `rows[i]` the new row i."""
        self._first, self._second = self._first[rows], self._second[rows]

    def join(self, other: Noise, start: int, stop: int) -> None:
        """Take the rows of another one behind one's own; ids are from `start` to `stop - 1`."""
        self._first = cat_rows(self._first, other._first)
        self._second = cat_rows(self._second, other._second)
        if (start, stop) != self._span:
            self._span, self._ids = (start, stop), _of_ids(start, stop, self._first.device)

    def at(self, steps: Tensor) -> Tensor:
        """Return the numbers (B, T, stop - start), above 0, of steps (B, T) counted from 0."""
        mixed = self._ids + self._first.gather(1, steps)[..., None]
        mixed ^= (mixed >> 16) & 0xFFFF
        mixed *= 0x21F0AAAD
        mixed ^= (mixed >> 15) & 0x1FFFF
        mixed += self._second.gather(1, steps)[..., None]
        mixed *= 0x735A2D97
        mixed ^= (mixed >> 15) & 0x1FFFF
        mixed &= 0x7FFFFFFF
        # From 2^-32, so that the smallest, which win, are fine-grained, to 1 - 2^-24.
        uniforms = mixed.float().mul_(2.0**-31).clamp_(2.0**-32, 1 - 2.0**-24)
        return uniforms.neg_().log1p_().neg_()


def check_seeds(seeds: Iterable[int], count: int | None = None) -> list[int]:
    """Return seeds as ints.

    Raises:
        ValueError: There are not `count` (None: any number), or one has no place in 64 bits.
    """
    if not isinstance(seeds, Iterable) or getattr(seeds, "ndim", 1) != 1:
        raise ValueError(f"seeds: wanted a sequence of whole numbers, got {seeds!r}")
    found = [whole("seeds", seed) for seed in seeds]
    if count is not None and len(found) != count:
        raise ValueError(f"seeds: wanted one per prompt ({count}), got {len(found)}")
    for seed in found:
        if not -(2**63) <= seed < 2**64:
            raise ValueError(f"seeds: wanted numbers from -2^63 to 2^64 - 1, got {seed}")
    return found


def cat_rows(above: Tensor, below: Tensor) -> Tensor:
    """Return the rows of two tables (B, columns), the narrower one padded with 0."""
    width = max(above.shape[1], below.shape[1])
    pad = torch.nn.functional.pad
    return torch.cat([pad(part, (0, width - part.shape[1])) for part in (above, below)])


def _of_ids(start: int, stop: int, device: torch.device | str) -> Tensor:
    """Return a number of 32 bits for each id."""
    ids = torch.arange(start, stop, dtype=torch.int64) * 0x9E3779B9  # an odd number: all differ
    return ids.to(torch.int32).to(device)


_GOLDEN = 0x9E3779B97F4A7C15 - 2**64


def _int64(numbers: Sequence[int]) -> Tensor:
    """Return the numbers modulo 2^64, as the int64 with the same bits."""
    return torch.tensor([(number + 2**63) % 2**64 - 2**63 for number in numbers])


def _split_mix(state: Tensor) -> Tensor:
    """Return the hash of int64 numbers."""
    state = state + _GOLDEN
    state = (state ^ ((state >> 30) & (2**34 - 1))) * (0xBF58476D1CE4E5B9 - 2**64)
    state = (state ^ ((state >> 27) & (2**37 - 1))) * (0x94D049BB133111EB - 2**64)
    return state ^ ((state >> 31) & (2**33 - 1))
