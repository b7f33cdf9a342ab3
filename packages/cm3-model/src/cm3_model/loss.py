"""Cross-entropy of hidden states in pieces, so that the logits never stand in memory whole.

4096 positions with 64,512 logits are 1 GB in float32, and as much again for their gradient. Here
a piece of positions has its logits computed, used and dropped; backward computes them once more.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def chunked_cross_entropy(
    hidden: Tensor,
    labels: Tensor,
    head: Callable[[Tensor], Tensor],
    *,
    chunk_size: int = 1024,
    ignore_index: int = -100,
) -> Tensor:
    """Mean loss in nats over the positions that count.

    Args:
        hidden: (..., D) last states, as `Decoder.hidden` gives them.
        labels: (...) the next ids, `ignore_index` where nothing counts.
        head: maps (N, D) to logits (N, V), such as `Decoder.head`.
        chunk_size: positions whose logits stand in memory at once.
        ignore_index: label of positions that do not count.

    Raises:
        ValueError: if shapes do not fit, no position counts, or `chunk_size` is below 1.
    """
    if hidden.shape[:-1] != labels.shape:
        raise ValueError(
            f"labels: wanted shape {tuple(hidden.shape[:-1])}, got {tuple(labels.shape)}"
        )
    if chunk_size < 1:
        raise ValueError(f"chunk_size: wanted at least 1, got {chunk_size}")
    counts = (labels != ignore_index).flatten().nonzero()[:, 0]  # (N,)
    if len(counts) == 0:
        raise ValueError("labels: wanted at least one position that counts, got none")
    states = hidden.flatten(0, -2).index_select(0, counts)  # (N, D)
    targets = labels.flatten().index_select(0, counts)  # (N,)

    def piece(states: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(head(states).float(), targets, reduction="sum")

    total = hidden.new_zeros((), dtype=torch.float32)
    for part, target in zip(states.split(chunk_size), targets.split(chunk_size), strict=True):
        if torch.is_grad_enabled():
            total = total + checkpoint(piece, part, target, use_reentrant=False)
        else:
            total = total + piece(part, target)
    return total / len(counts)
