"""Prompts and what becomes of the ids behind them, apart from the model that draws the ids.

So one prompt is drawn alone, for the command line, and many of different users together, for a
service, by the same code.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import torch

from cm3_decoding import LanguageModel, ReadsAhead, Row, generate_rows
from cm3leon.parts import Parts

Progress = Callable[[int, int], None]
"""Called with (ids drawn, ids in all)."""

Result = TypeVar("Result")

LOOKAHEAD = 16
"""Ids of a row that a pass reads where there are few rows: changes none of them, and saves time."""


def lookahead_of(model: LanguageModel) -> int:
    """Return how far a model is to look ahead: `LOOKAHEAD`, or not at all if it cannot."""
    return LOOKAHEAD if isinstance(model, ReadsAhead) else 1


@dataclass(frozen=True, kw_only=True)
class Continuation(Generic[Result]):
    """Rows to continue, and what their new ids are made into."""

    rows: Sequence[Row]
    finish: Callable[[Sequence[torch.Tensor]], Result]
    """Makes the result of the new ids (length,) of all rows."""
    contexts: Sequence[Sequence[int]] = ()
    """Keys of the documents that stand before each prompt, the best last."""
    codes_so_far: Callable[[Sequence[torch.Tensor]], tuple[np.ndarray, int]] | None = None
    """Of rows that draw pictures: makes their codes (rows, h * w), and the number of rows of codes
    that are complete in all of them, of the first new ids of each row; what is missing repeats what
    is there."""

    def carry_out(
        self, parts: Parts, *, progress: Progress | None = None, batch_size: int = 32
    ) -> Result:
        """Draw the ids, `batch_size` rows at a time, and return the result."""
        drawn = generate_rows(
            parts.model,
            self.rows,
            batch_size=batch_size,
            progress=progress,
            device=parts.device,
            lookahead=lookahead_of(parts.model),
        )
        return self.finish(drawn)


def picture_so_far(parts: Parts, ids: Sequence[torch.Tensor]) -> tuple[np.ndarray, int]:
    """Return codes of pictures whose first ids are drawn; see `Continuation.codes_so_far`."""
    vocabulary, (height, width) = parts.tokenizers.vocabulary, parts.tokenizers.grid
    whole = min(map(len, ids)) // width
    drawn = vocabulary.ids_to_codes(torch.stack([row[: whole * width] for row in ids]).numpy())
    if not whole:
        return np.zeros((len(ids), height * width), np.int64), 0
    last = drawn[:, -width:]
    return np.concatenate([drawn, np.tile(last, (1, height - whole))], 1), whole
