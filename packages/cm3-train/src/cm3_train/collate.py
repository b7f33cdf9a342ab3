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
    weights: np.ndarray | None = None
    """(L,) how much each id counts as a label, 0 not at all; None: all alike."""


def labels_of(sample: Sample) -> tuple[np.ndarray, np.ndarray]:
    """Return the labels (L - 1,) of all ids but the first, -100 where none counts; and weights."""
    labels = sample.ids[1:].copy()
    labels[: max(1, sample.scored_from) - 1] = IGNORE
    if sample.weights is None:
        return labels, np.ones(len(labels), np.float32)
    weights = sample.weights[1:].astype(np.float32)
    labels[weights == 0] = IGNORE
    return labels, weights


def collate(samples: Sequence[Sample], pad_id: int) -> dict[str, Tensor]:
    """Pad on the right and shift: the label of a position is the id that follows it.

    Args:
        samples: One for each row; at least one has two ids or more.
        pad_id: Fills `input_ids` up; its labels are -100.

    Returns:
        `input_ids` and `labels`, int64 (B, max L - 1). Ids [5, 6, 7] give inputs [5, 6] and labels
        [6, 7]; scored from 2 on, labels [-100, 7]. Also `weights`, float32 of the same shape, where
        a sample has some.

    Raises:
        ValueError: No sample has two ids, or the ids of one are no integers.
    """
    width = max(len(sample.ids) for sample in samples) - 1
    if width < 1:
        raise ValueError("samples: wanted at least two ids in one of them")
    input_ids = np.full((len(samples), width), pad_id, dtype=np.int64)  # (B, T)
    labels = np.full((len(samples), width), IGNORE, dtype=np.int64)  # (B, T)
    weights = np.ones((len(samples), width), dtype=np.float32)  # (B, T)
    for row, sample in enumerate(samples):
        ids = integers(sample.ids, f"samples: ids of row {row}")
        here = slice(0, len(ids) - 1)
        input_ids[row, here] = ids[:-1]
        labels[row, here], weights[row, here] = labels_of(sample._replace(ids=ids))
    arrays = {"input_ids": input_ids, "labels": labels}
    if any(sample.weights is not None for sample in samples):
        arrays["weights"] = weights
    return {name: torch.from_numpy(array) for name, array in arrays.items()}
