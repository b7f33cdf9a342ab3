"""The memory of caches that are gone, for the next ones of the same shape.

A compiled step on a CUDA device is recorded with the addresses of its cache. Where every cache had
memory of its own, every call would record it again.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cm3_model.shared_prefixes import Layers

if TYPE_CHECKING:
    from cm3_model.kv_cache import KVCache

MOST_SPARE = 4
"""Memory of as many shapes is kept while no cache has it."""


@dataclass(eq=False, kw_only=True)
class Memory:
    """Keys and values of R rows of L tokens, and the places of the tokens."""

    layers: Layers
    """Keys and values of every layer, each (R, H, L, W)."""
    places: Tensor
    """(R, P) with room for what rows share, too."""


def laid_out(
    num_layers: int,
    shape: tuple[int, int, int, int],
    places: int,
    device: torch.device,
    dtype: torch.dtype,
) -> Memory:
    """Lay out memory of a shape (R, H, L, W), with `places` for every row."""

    # Zeros, not empty memory: a masked slot has weight 0, and 0 * NaN would still be NaN.
    def zeros() -> Tensor:
        return torch.zeros(shape, device=device, dtype=dtype)

    return Memory(
        layers=[(zeros(), zeros()) for _ in range(num_layers)],
        places=torch.zeros((shape[0], places), device=device, dtype=torch.long),
    )


@dataclass
class MemoryPool:
    """What is lent to caches, and what they have left behind."""

    _lent: list[tuple[object, weakref.ref[KVCache], Memory]] = field(default_factory=list)

    def lend(
        self,
        cache: KVCache,
        num_layers: int,
        shape: tuple[int, int, int, int],
        places: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> Memory:
        """Return memory of zeros as `laid_out` does, for a cache to have as `cache.memory`."""
        # what is made in inference mode can be written to in inference mode alone
        mode = torch.is_inference_mode_enabled()
        kind = num_layers, shape, places, device, dtype, mode
        for place, (other, owner, memory) in enumerate(self._lent):
            if other == kind and _is_free(owner, memory):
                for part in (memory.places, *(part for layer in memory.layers for part in layer)):
                    part.zero_()
                del self._lent[place]
                break
        else:
            memory = laid_out(num_layers, shape, places, device, dtype)
        spare = [memory for _, owner, memory in self._lent if _is_free(owner, memory)]
        too_many = spare[: max(0, len(spare) - MOST_SPARE)]
        self._lent = [entry for entry in self._lent if entry[2] not in too_many]
        self._lent.append((kind, weakref.ref(cache), memory))
        return memory


def _is_free(owner: weakref.ref[KVCache], memory: Memory) -> bool:
    cache = owner()
    return cache is None or getattr(cache, "memory", None) is not memory
