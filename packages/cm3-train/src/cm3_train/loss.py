"""Next-token loss where every token weighs the same (paper 2.2), and its parts by modality.

Takes hidden states and the head, or logits, with labels; padded positions (-100) are left out
before the head's matrix product, so they cost no logits.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from cm3_train.batch import IGNORE


def token_losses(
    hidden: Tensor, labels: Tensor, head: Callable[[Tensor], Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """Return the loss of every position that counts, and its label.

    Args:
        hidden: hidden states (B, T, D), or logits (B, T, V) when there is no `head`.
        labels: the next ids (B, T), -100 where nothing counts.
        head: maps (N, D) to logits (N, V).

    Returns:
        Losses in nats, float32 (N,), and labels (N,), N the number of positions that count.
    """
    valid = (labels != IGNORE).flatten().nonzero().flatten()  # (N,) places in (B * T,)
    # not hidden[mask]: its backward adds one by one where PyTorch is asked to be deterministic
    chosen = hidden.flatten(0, 1).index_select(0, valid)  # (N, D)
    targets = labels.flatten().index_select(0, valid)  # (N,)
    logits = chosen if head is None else head(chosen)  # (N, V)
    return F.cross_entropy(logits.float(), targets, reduction="none"), targets


def next_token_loss(
    hidden: Tensor, labels: Tensor, head: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    """Return the mean loss in nats over the positions that count; see `token_losses`."""
    return token_losses(hidden, labels, head)[0].mean()


def split_losses(
    losses: Tensor, labels: Tensor, image_range: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Split losses (N,) into those of image ids and those of all others, by their labels (N,).

    Args:
        losses: as `token_losses` gives them.
        labels: likewise.
        image_range: image ids are `start <= id < stop`.
    """
    is_image = (labels >= image_range[0]) & (labels < image_range[1])
    return losses[is_image], losses[~is_image]


def bits(nats: float | Tensor) -> float:
    """Convert nats to bits."""
    value = nats.item() if isinstance(nats, torch.Tensor) else nats
    return value / math.log(2)
