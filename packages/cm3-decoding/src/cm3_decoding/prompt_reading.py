"""Reading the prompts of a batch: each distinct one once, and what they begin with in common once.

Takes a `Reading`, as `streams.lay_out` makes it, and gives a cache that has a row for every row of
the model's batch, and the logits after the prompts.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from cm3_decoding.interface import LanguageModel
from cm3_decoding.streams import Reading


def make_cache(
    model: LanguageModel, reading: Reading, used: np.ndarray, limits: np.ndarray
) -> tuple[Any, int]:
    """Make a cache with a row per distinct prompt, or per batch row if it cannot repeat rows.

    Returns it with the ids that a row has room for.
    """
    # the last new id is never read again
    length = int((used + np.maximum(limits, 1)).max()) - 1
    most = int(used.max() + max(1, limits.max())) - 1
    rows, all_rows = len(reading.distinct), len(reading.lengths)
    try:
        if reading.stems is not None:
            cache = model.make_cache(len(reading.stems.lengths), length)
            if shares_prefixes(cache):
                return cache, length
        cache = model.make_cache(rows, length)
        if (rows, length) != (all_rows, most) and not hasattr(cache, "select_rows"):
            length = most  # finished rows stay, and are fed as long as the others
            cache = model.make_cache(all_rows, length)
    except ValueError as error:
        row = int((used + limits).argmax())
        raise ValueError(
            f"prompts: a prompt of {used[row]} and {limits[row]} new ids do not fit the model: "
            f"{error}"
        ) from error
    return cache, length


def read_prompts(model: LanguageModel, reading: Reading, cache: Any) -> Tensor:
    """Read the prompts into the cache of `make_cache` and return the logits (N, V) after them."""
    ids, lengths, stems = reading.input_ids, reading.lengths, reading.stems
    if stems is not None and shares_prefixes(cache):
        model.prefill(stems.ids, stems.lengths, cache)
        cache.select_rows(stems.of_prompt)
        logits = model.prefill(stems.rests, stems.rest_lengths, cache)
    elif len(reading.distinct) == len(lengths) or not hasattr(cache, "select_rows"):
        return model.prefill(ids, lengths, cache)
    else:
        logits = model.prefill(ids[reading.distinct], lengths[reading.distinct], cache)
    if len(reading.distinct) < len(lengths):
        cache.select_rows(reading.copies)
    return logits[reading.copies]


def shares_prefixes(cache: Any) -> bool:
    """Tell whether what prompts begin with in common had better be read once."""
    return bool(getattr(cache, "shares_prefixes", False)) and hasattr(cache, "select_rows")
