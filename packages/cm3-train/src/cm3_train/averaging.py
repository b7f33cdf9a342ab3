"""A running mean of weights, which is often better than the last ones."""

from __future__ import annotations

import torch
from torch import nn


@torch.no_grad()
def average_weights(averaged: nn.Module, model: nn.Module, step: int, decay: float) -> None:
    """Move `averaged`, a copy of `model`, towards its present weights; buffers are copied.

    Args:
        averaged: moved in place.
        model: the one that is trained.
        step: steps taken, this one included, from 1.
        decay: share of the old mean that stays. Early on it is less: the mean of few steps is
            better than a mean with the random start.
    """
    decay = min(decay, (1 + step) / (10 + step))
    for kept, weight in zip(averaged.parameters(), model.parameters(), strict=True):
        kept.lerp_(weight.detach(), 1 - decay)
    for kept, buffer in zip(averaged.buffers(), model.buffers(), strict=True):
        kept.copy_(buffer)
