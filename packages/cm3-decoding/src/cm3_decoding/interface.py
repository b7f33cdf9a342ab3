"""What this package needs: any model with the three methods of `LanguageModel`.

Only tensors, ints and an opaque cache cross the boundary; `contract.check_language_model` checks
an implementation.
"""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor

INTERFACE_VERSION = "1.0"
"""Major version of the Protocol below."""


class LanguageModel(Protocol):
    """A causal model that keeps what it has read in a cache with rows of unequal length."""

    def make_cache(self, batch_size: int, length: int) -> Any:
        """Make an empty cache for `batch_size` rows of up to `length` tokens each.

        Raises `ValueError` if `length` is more than the model's context. If the cache has a method
        `select_rows(rows)`, which makes old row `rows[i]` row i, then streams that guidance needs
        no longer are dropped, and a prompt of several rows is read once.
        """
        ...

    def prefill(self, input_ids: Tensor, lengths: Tensor, cache: Any) -> Tensor:
        """Read right-padded prompts (B, T), of which `lengths` (B,) ids count, into the cache.

        Gives the logits (B, V) after each row's last id.
        """
        ...

    def decode_one_token(self, input_ids: Tensor, cache: Any) -> Tensor:
        """Append one id per row (B,); gives the logits (B, V) after it."""
        ...
