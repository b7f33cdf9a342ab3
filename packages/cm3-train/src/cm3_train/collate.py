"""Samples to tensors: what a builder makes of a document, padded and shifted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from cm3_train.integers import integers

IGNORE = -100
"""Label of a position that does not count; `torch.nn.functional.cross_entropy` skips it."""


class Sample(NamedTuple):
    """A sequence to train or validate on, and the part of it that is learnt.

    Retrieved context, validation on the query alone and training on an answer alone are all this:
    the ids before `scored_from` are read, those from it on are predicted.
    """

    ids: np.ndarray
    """(L,) integers."""
    scored_from: int = 1
    """Place of the first id that counts as a label; the first id of all is never one."""


def collate(samples: Sequence[Sample], pad_id: int) -> dict[str, Tensor]:
    """Pad on the right and shift: the label of a position is the id that follows it.

    Args:
        samples: One for each row; at least one has two ids or more.
        pad_id: Fills `input_ids` up; its labels are -100.

    Returns:
        `input_ids` and `labels`, int64 (B, max L - 1). Ids [5, 6, 7] give inputs [5, 6] and labels
        [6, 7]; scored from 2 on, labels [-100, 7].

    Raises:
        ValueError: No sample has two ids, or the ids of one are no integers.
    """
    width = max(len(sample.ids) for sample in samples) - 1
    if width < 1:
        raise ValueError("samples: wanted at least two ids in one of them")
    input_ids = np.full((len(samples), width), pad_id, dtype=np.int64)  # (B, T)
    labels = np.full((len(samples), width), IGNORE, dtype=np.int64)  # (B, T)
    for row, (ids, scored_from) in enumerate(samples):
        ids, first = integers(ids, f"samples: ids of row {row}"), max(1, scored_from)
        input_ids[row, : len(ids) - 1] = ids[:-1]
        labels[row, first - 1 : len(ids) - 1] = ids[first:]
    return {"input_ids": torch.from_numpy(input_ids), "labels": torch.from_numpy(labels)}
