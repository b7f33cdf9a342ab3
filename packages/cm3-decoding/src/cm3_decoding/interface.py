"""The interface of a model to decode with: the three methods of `LanguageModel`, and two more.

Only tensors, ints and an opaque cache cross the boundary. `contract.check_language_model` checks an
implementation.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from torch import Tensor

INTERFACE_VERSION = "1.0"
"""Version of `LanguageModel`."""


class LanguageModel(Protocol):
    """A causal model that stores what it has read in a cache with rows of unequal length."""

    def make_cache(self, batch_size: int, length: int) -> Any:
        """Make an empty cache for `batch_size` rows of up to `length` tokens each.

        If the cache has a method `select_rows(rows)`, which replaces row i by old row `rows[i]`,
        then rows that are finished and streams that guidance no longer needs are dropped, and a
        prompt shared by several rows is read once. If it has a method `join(other)` too, which
        takes the rows of another cache behind its own, then rows that wait take the place of
        finished ones. If besides `shares_prefixes` is true, then `prefill` reads more ids into rows
        that have some, and what long prompts begin with in common, such as retrieved documents, is
        read once.

        Raises:
            ValueError: `length` exceeds the model's context.
        """
        ...

    def prefill(self, input_ids: Tensor, lengths: Tensor, cache: Any) -> Tensor:
        """Read right-padded prompts (B, T), of which `lengths` (B,) ids count, into the cache.

        Returns:
            Logits (B, V) after each row's last id.
        """
        ...

    def decode_one_token(self, input_ids: Tensor, cache: Any) -> Tensor:
        """Append one id per row (B,) and return the logits (B, V) after it."""
        ...


@runtime_checkable
class DecodesSpans(Protocol):
    """What a `LanguageModel` may offer besides: logits of those ids alone that may come next."""

    def decode_span(self, input_ids: Tensor, cache: Any, start: int, stop: int) -> Tensor:
        """Append one id per row (B,); return the logits (B, stop - start) of `start` to `stop - 1`.

        Other ids of a large vocabulary would take much of a step. A model that has this method is
        never asked for `decode_one_token`.
        """
        ...


@runtime_checkable
class ReadsAhead(Protocol):
    """What a `LanguageModel` may offer besides: one pass over several ids of every row.

    Its cache has `select_rows`, and a method `forget(counts)`, which takes the last `counts` (B,)
    ids back.
    """

    def decode_several(self, input_ids: Tensor, cache: Any, start: int, stop: int) -> Tensor:
        """Append ids (B, T) to the rows; return logits (B, T, stop - start) after each of them.

        The logits are those of the ids `start` to `stop - 1`.
        """
        ...
