"""The package's promises: the `CausalLM` Protocol, and the names in its saved files.

Only tensors, ints and an opaque cache cross the boundary, so any class with these methods can
stand in for `Decoder`; `contract.check_language_model` checks one.
"""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor

INTERFACE_VERSION = "1.0"
"""Major version of everything saved here and of the Protocol below."""

COMPONENT = "cm3-model/decoder"
"""Name of a saved decoder in its `config.json`."""


class CausalLM(Protocol):
    """A model that predicts the next id, for training (no cache) and for decoding (cache)."""

    def __call__(self, input_ids: Tensor) -> Tensor:
        """Return logits (B, T, V) of the next id after each of `input_ids` (B, T)."""
        ...

    def hidden(self, input_ids: Tensor) -> Tensor:
        """Return last states (B, T, D), so that a trainer can pick positions before `head`."""
        ...

    def head(self, hidden: Tensor) -> Tensor:
        """Return logits (..., V) of last states (..., D)."""
        ...

    def make_cache(self, batch_size: int, length: int) -> Any:
        """Make an empty cache for `batch_size` rows of up to `length` tokens each."""
        ...

    def prefill(self, input_ids: Tensor, lengths: Tensor, cache: Any) -> Tensor:
        """Append right-padded ids (B, T), of which `lengths` (B,) count, to the cache's rows.

        Return the logits (B, V) after each row's last id.
        """
        ...

    def decode_one_token(self, input_ids: Tensor, cache: Any) -> Tensor:
        """Append one id per row (B,); return the logits (B, V) after it."""
        ...
