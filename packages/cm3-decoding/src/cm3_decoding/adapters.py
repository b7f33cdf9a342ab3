"""Adapter that makes a causal model of Hugging Face transformers a `LanguageModel`.

Works with any model that accepts `past_key_values`; does not import transformers.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_WINDOWS = ("window_size", "attention_window_size", "attention_chunk_size")
_POSITIONS_BY_MASK = ("bloom",)
"""Models that take no positions, since they count the ones of the attention mask."""
_SCALED_BY_LENGTH = ("longrope", "su", "dynamic")
"""Rotary positions whose factors the longest row of a batch decides."""


@dataclass
class TransformersCache:
    """The ids that a model of transformers has read, and which slots count."""

    past: Any
    """The model's own cache, None before the first pass."""
    mask: Tensor
    """(B, slots so far) 1 for a slot with an id, 0 for padding."""
    lengths: Tensor
    """(B,) ids read so far."""
    room: int
    """Most ids per row."""

    def select_rows(self, rows: Tensor) -> None:
        """Replace row i by old row `rows[i]`."""
        if self.past is not None:
            self.past.batch_select_indices(rows)
        self.mask, self.lengths = self.mask[rows], self.lengths[rows]


class TransformersModel:
    """A causal language model of transformers, with the three methods of `LanguageModel`.

    Prompts are padded on the right. The attention mask hides the padding and every id has an
    explicit position, so rows do not depend on each other. Models whose memory counts the padding
    all the same (windows shorter than the row, recurrent states, positions counted by slot), or
    whose positions are scaled by the longest row, are refused as soon as rows have unequal lengths.
    """

    def __init__(self, model: Any, *, from_hidden: bool = False) -> None:
        """Wrap a model.

        Args:
            model: A model as of `AutoModelForCausalLM`, in eval mode.
            from_hidden: Compute logits from the last hidden states with the output embedding.
                Chameleon needs it, since its own `forward` hides the logits of all image codes.
                Not for models that change their logits further, such as by capping them.
        """
        self.model = model
        self.from_hidden = from_hidden
        self.context: int | None = getattr(model.config, "max_position_embeddings", None)

    def make_cache(self, batch_size: int, length: int) -> TransformersCache:
        """Make an empty cache; raise `ValueError` if `length` exceeds the model's context."""
        if self.context is not None and length > self.context:
            raise ValueError(f"length: wanted at most {self.context}, got {length}")
        device = self.model.get_input_embeddings().weight.device
        return TransformersCache(
            past=None,
            mask=torch.zeros(batch_size, 0, dtype=torch.long, device=device),
            lengths=torch.zeros(batch_size, dtype=torch.long, device=device),
            room=length,
        )

    def prefill(self, input_ids: Tensor, lengths: Tensor, cache: TransformersCache) -> Tensor:
        """Read right-padded prompts (B, T); return the logits (B, V) after each row's last id.

        Raises:
            ValueError: The ids do not fit the cache, or lengths differ and the model would count
                the padding or the longest row.
        """
        if int((cache.lengths + lengths).max()) > cache.room:
            raise ValueError(
                f"cache: wanted room for {int((cache.lengths + lengths).max())} ids, "
                f"got {cache.room}"
            )
        return self._read(input_ids, lengths, cache)

    def decode_one_token(self, input_ids: Tensor, cache: TransformersCache) -> Tensor:
        """Append one id per row (B,) and return the logits (B, V) after it."""
        return self._read(input_ids[:, None], torch.ones_like(cache.lengths), cache)

    def _read(self, input_ids: Tensor, lengths: Tensor, cache: TransformersCache) -> Tensor:
        column = torch.arange(input_ids.shape[1], device=input_ids.device)
        counts = column < lengths[:, None]  # (B, T)
        mask = torch.cat([cache.mask, counts.to(cache.mask)], 1)  # (B, slots)
        # Padding gets a position that exists; nothing reads it.
        positions = cache.lengths[:, None] + torch.minimum(column, lengths[:, None] - 1)  # (B, T)
        inner = self.model.base_model if self.from_hidden else self.model
        output = inner(
            input_ids=input_ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache.past,
            use_cache=True,
        )
        if getattr(output, "past_key_values", None) is None:
            raise ValueError(
                f"model: wanted one with past_key_values, got {type(self.model).__name__}"
            )
        if bool((lengths != input_ids.shape[1]).any()):
            self._check_padding(output.past_key_values, cache.room)
        rows = torch.arange(len(lengths), device=input_ids.device)
        if self.from_hidden:
            last = output.last_hidden_state[rows, lengths - 1]  # (B, D)
            logits = self.model.get_output_embeddings()(last)
        else:
            logits = output.logits[rows, lengths - 1]
        cache.past, cache.mask = output.past_key_values, mask
        cache.lengths = cache.lengths + lengths
        return logits

    def _check_padding(self, past: Any, room: int) -> None:
        """Refuse a model that would count padding, or another row's ids, among a row's ids."""
        config = self.model.config
        counted, problem = "padding", None
        for layer in getattr(past, "layers", ()):
            kind = type(layer).__name__
            window = getattr(layer, "sliding_window", None)
            if kind != "DynamicLayer" and (window is None or window < room):
                problem = kind if window is None else f"{kind} of {window} for {room} ids"
        for name in _WINDOWS:  # of models that slide without such a layer
            window = getattr(config, name, None)
            if isinstance(window, int) and window < room:
                problem = f"{name} {window} for {room} ids"
        positions = inspect.signature(self.model.forward).parameters
        if "position_ids" not in positions and config.model_type not in _POSITIONS_BY_MASK:
            problem = "positions counted by slot"
        for kind, reach in _scaled_by_length(config):
            if reach < room:
                counted, problem = "the longest row", f"{kind} beyond {reach} for {room} ids"
        if problem is not None:
            raise ValueError(
                f"prompts: wanted rows of one length for {type(self.model).__name__}, which counts "
                f"{counted} ({problem}); draw each length by itself"
            )


def _scaled_by_length(config: Any) -> Iterator[tuple[str, int]]:
    """Yield such rotary positions of a config, and up to how many ids they are not scaled."""
    for name in ("rope_scaling", "rope_parameters"):
        values = getattr(config, name, None) or {}
        for part in (values, *values.values()):  # or one for each kind of layer
            kind = part.get("rope_type", part.get("type")) if isinstance(part, Mapping) else None
            if kind in _SCALED_BY_LENGTH:
                original = "original_max_position_embeddings"
                most = getattr(config, original, None) or config.max_position_embeddings
                yield kind, part.get(original) or most
