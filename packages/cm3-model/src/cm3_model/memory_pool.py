"""The memory of caches that are gone, for the next ones of the same shape.

A compiled step on a CUDA device is recorded with the addresses of its cache. Where every cache had
memory of its own, every call would record it again.
"""

from __future__ import annotations

import threading
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from cm3_model.shared_prefixes import Layers

if TYPE_CHECKING:
    from cm3_model.kv_cache import KVCache

MOST_SPARE = 2
"""As many memories are kept while no cache has them: one for prompts, one for their copies."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The size and kind of a memory."""

    num_layers: int
    shape: tuple[int, int, int, int]
    """(R, H, L, W)."""
    places: int
    """Places of every row."""
    device: torch.device
    dtype: torch.dtype


@dataclass(eq=False, kw_only=True)
class Memory:
    """Keys and values of R rows of L tokens, and the places of the tokens."""

    layers: Layers
    """Keys and values of every layer, each (R, H, L, W)."""
    places: Tensor
    """(R, P) with room for what rows share, too."""


def laid_out(layout: Layout) -> Memory:
    """Lay out memory."""

    # Zeros, not empty memory: a masked slot has weight 0, and 0 * NaN would still be NaN.
    def zeros() -> Tensor:
        return torch.zeros(layout.shape, device=layout.device, dtype=layout.dtype)

    size = layout.shape[0], layout.places
    return Memory(
        layers=[(zeros(), zeros()) for _ in range(layout.num_layers)],
        places=torch.zeros(size, device=layout.device, dtype=torch.long),
    )


@dataclass(eq=False, kw_only=True)
class _Loan:
    kind: object
    owner: weakref.ref[KVCache]
    memory: Memory
    returned: bool = False

    @property
    def ended(self) -> bool:
        return self.returned or self.owner() is None


class MemoryPool:
    """What is lent to caches, and a little of what they have left behind."""

    def __init__(self) -> None:
        """Start with nothing."""
        self._loans: list[_Loan] = []
        self._lock = threading.Lock()

    def __deepcopy__(self, memo: dict[int, Any]) -> MemoryPool:
        """Return the same; the memory of a copied cache is its own, and is never lent."""
        return self

    def __reduce__(self) -> tuple[type[MemoryPool], tuple[()]]:
        """Come back from a pickle with nothing."""
        return type(self), ()

    def lend(self, cache: KVCache, layout: Layout) -> Memory:
        """Return memory of zeros as `laid_out` does, the cache's until it is gone or gives back."""
        # what is made in inference mode can be written to in inference mode alone
        kind = layout, torch.is_inference_mode_enabled()
        with self._lock:
            spare = [loan for loan in self._loans if loan.ended]
            same = [loan for loan in spare if loan.kind == kind and not _has_graph(loan.memory)]
            kept = [loan for loan in spare if loan not in same[-1:]][-MOST_SPARE:]
            self._loans = [loan for loan in self._loans if loan in kept or not loan.ended]
            if same:
                memory = same[-1].memory
                for part in (memory.places, *(part for layer in memory.layers for part in layer)):
                    part.zero_()
            else:
                memory = laid_out(layout)
            self._loans.append(_Loan(kind=kind, owner=weakref.ref(cache), memory=memory))
        return memory

    def give_back(self, memory: Memory) -> None:
        """Take memory that its cache needs no longer; what was not lent is ignored."""
        with self._lock:
            for loan in self._loans:
                loan.returned |= loan.memory is memory


def _has_graph(memory: Memory) -> bool:
    """Tell whether it was written to while gradients were wanted."""
    return any(part.requires_grad for layer in memory.layers for part in layer)
