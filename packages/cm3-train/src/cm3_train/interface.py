"""What cm3-train asks of others, and the version that its saved artifacts carry.

The only thing of another package that training touches is the model: it must give its hidden states
and its head apart, so that the loss can pick the positions that count before the head is applied.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor

INTERFACE_VERSION = "1.0"
"""Version of the Protocols and of every artifact saved here; the major part must match on load."""


@runtime_checkable
class TrainableModel(Protocol):
    """A causal language model whose head can be applied to chosen positions only."""

    def hidden(self, input_ids: Tensor) -> Tensor:
        """Map ids (B, T) to the final hidden states (B, T, D); position t sees ids 0..t only.

        For `PackedLoader` it takes a second argument, the documents' numbers (B, T), and position t
        sees ids of its own document alone.
        """
        ...

    def head(self, hidden: Tensor) -> Tensor:
        """Map hidden states (..., D) to logits (..., V), each position on its own."""
        ...
