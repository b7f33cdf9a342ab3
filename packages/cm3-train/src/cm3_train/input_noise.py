"""Wrong ids among the inputs of training, so that a model does not lean on the last few alone.

A picture's first codes tell a trained model more about the rest than the caption does, and in a
drawing those first codes are its own guesses. With noise among the inputs the caption stays worth
reading, and a wrong guess is something the model has met (Xie et al., arXiv 1703.02573).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def add_input_noise(
    batch: dict[str, Tensor], ids: tuple[int, int], largest_share: float, rng: np.random.Generator
) -> dict[str, Tensor]:
    """Replace some inputs by ids drawn evenly from the same block; the labels stay true.

    Args:
        batch: `input_ids` (B, T) and anything else, as `collate` gives it.
        ids: first and behind-last id of the block whose inputs are replaced.
        largest_share: each row draws its share of replaced inputs evenly from 0 to this.
        rng: draws shares, places and ids.

    Returns:
        The batch with a new `input_ids`; the one that was given is left as it is.
    """
    if not 0 <= largest_share <= 1:
        raise ValueError(f"largest_share: wanted 0..1, got {largest_share}")
    inputs = batch["input_ids"].numpy()
    share = rng.random((len(inputs), 1)) * largest_share
    hit = (inputs >= ids[0]) & (inputs < ids[1]) & (rng.random(inputs.shape) < share)
    noisy = np.where(hit, rng.integers(*ids, size=inputs.shape), inputs)
    return {**batch, "input_ids": torch.from_numpy(noisy)}
