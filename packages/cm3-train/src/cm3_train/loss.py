"""Next-token loss, where every token weighs the same (paper 2.2) unless weights are given.

The logits never stand in memory as a whole: 4096 positions with 64,512 of them are 1 GB in float32,
and as much again for their gradient. Here a piece of positions has its logits computed, used and
dropped. With the head as a matrix, the gradients of states and matrix come at once, while the
logits are there (as in Liger Kernel, arXiv 2410.10989). With any other head backward computes the
logits once more, but for the last piece's, which it starts with: keeping those costs no memory at
the peak.

Positions that do not count (label -100) are left out before the head's product.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from cm3_train.collate import IGNORE

Head = Tensor | Callable[[Tensor], Tensor]
"""The matrix (V, D) of the logits, or what maps (N, D) to logits (N, V)."""


CPU_LOGITS = 2**24
"""Logits, 64 MiB in float32, of which more at once are no faster on a CPU."""


class TokenLosses(NamedTuple):
    """The loss of N positions that count."""

    total: Tensor
    """Weighted sum in nats, a float32 scalar; gradients flow through this one."""
    nats: Tensor
    """(N,) float32, each position's own; without gradients."""
    labels: Tensor
    """(N,) the ids that were to be predicted."""


def token_losses(
    hidden: Tensor,
    labels: Tensor,
    head: Head,
    *,
    weights: Tensor | None = None,
    chunk_size: int | None = None,
) -> TokenLosses:
    """Compute the cross-entropy of every position that counts.

    Args:
        hidden: (..., D) last states.
        labels: (...) the next ids, -100 where nothing counts.
        head: A matrix needs a quarter less arithmetic than a callable.
        weights: (...) what each position counts in `total`; None: 1.
        chunk_size: Positions whose logits stand in memory at once; None: 1024, under a float32
            matrix on a CPU as few as have `CPU_LOGITS` logits.

    Raises:
        ValueError: Shapes do not fit, or `chunk_size` is below 1.
    """
    if hidden.shape[:-1] != labels.shape:
        raise ValueError(
            f"labels: wanted shape {tuple(hidden.shape[:-1])}, got {tuple(labels.shape)}"
        )
    if weights is not None and weights.shape != labels.shape:
        raise ValueError(f"weights: wanted shape {tuple(labels.shape)}, got {tuple(weights.shape)}")
    if chunk_size is None:
        chunk_size = 1024
        # a matrix in a shorter format would lose digits by the additions of more pieces
        if isinstance(head, Tensor) and (head.device.type, head.dtype) == ("cpu", torch.float32):
            chunk_size = min(chunk_size, max(64, CPU_LOGITS // len(head)))
    if chunk_size < 1:
        raise ValueError(f"chunk_size: wanted at least 1, got {chunk_size}")
    counts = (labels != IGNORE).flatten().nonzero()[:, 0]  # (N,) places
    # not hidden[mask]: its backward adds one by one where PyTorch is asked to be deterministic
    states = hidden.flatten(0, -2).index_select(0, counts)  # (N, D)
    targets = labels.flatten().index_select(0, counts)  # (N,)
    shares = None if weights is None else weights.flatten().index_select(0, counts).float()

    if isinstance(head, Tensor):
        total, nats = _LinearCrossEntropy.apply(states, head, targets, shares, chunk_size)  # pyright: ignore
        return TokenLosses(total, nats, targets)

    def piece(states: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(head(states).float(), targets, reduction="none")

    pieces = []
    for start in range(0, len(counts), chunk_size):
        part, target = states[start : start + chunk_size], targets[start : start + chunk_size]
        if torch.is_grad_enabled() and start + chunk_size < len(counts):
            pieces.append(checkpoint(piece, part, target, use_reentrant=False))
        else:
            pieces.append(piece(part, target))
    nats = torch.cat(pieces) if pieces else states.sum(-1, dtype=torch.float32)  # (N,)
    total = nats.sum() if shares is None else (nats * shares).sum()
    return TokenLosses(total, nats.detach(), targets)


def next_token_loss(
    hidden: Tensor, labels: Tensor, head: Head, *, chunk_size: int | None = None
) -> Tensor:
    """Compute the mean loss in nats over the positions that count; see `token_losses`.

    Raises:
        ValueError: As `token_losses`, or no position counts.
    """
    losses = token_losses(hidden, labels, head, chunk_size=chunk_size)
    if len(losses.nats) == 0:
        raise ValueError("labels: wanted at least one position that counts, got none")
    return losses.total / len(losses.nats)


def split_losses(
    nats: Tensor, labels: Tensor, image_range: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Split losses (N,) into those of image ids and those of all others, by their labels (N,).

    Args:
        nats: As `token_losses` gives them.
        labels: Likewise.
        image_range: Image ids are `start <= id < stop`.
    """
    is_image = (labels >= image_range[0]) & (labels < image_range[1])
    return nats[is_image], nats[~is_image]


def bits(nats: float | Tensor) -> float:
    """Convert nats to bits."""
    return float(nats) / math.log(2)


class _LinearCrossEntropy(torch.autograd.Function):
    """Cross-entropy of states (N, D) under a matrix (V, D); gradients made in forward.

    What is summed is differentiated, not the mean: slopes divided by thousands of positions would
    fall out of float16's range.
    """

    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        weight: Tensor,
        targets: Tensor,
        shares: Tensor | None,
        chunk_size: int,
    ) -> tuple[Tensor, Tensor]:
        """Compute the weighted sum and each position's part, in float32."""
        device = states.device.type
        dtype = weight.dtype
        if torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)
        to_states = torch.empty_like(states) if ctx.needs_input_grad[0] else None
        to_weight = torch.zeros_like(weight) if ctx.needs_input_grad[1] else None
        nats = states.new_empty(len(states), dtype=torch.float32)
        with torch.autocast(device, enabled=False):
            matrix = weight.to(dtype)
            for start in range(0, len(states), chunk_size):
                piece = slice(start, start + chunk_size)
                part, target = states[piece].to(dtype), targets[piece, None]
                logs = F.log_softmax(part @ matrix.mT, -1, dtype=torch.float32)  # (n, V)
                nats[piece] = -logs.gather(-1, target)[:, 0]
                if to_states is None and to_weight is None:
                    continue
                # the gradient of the logits: probability, less 1 at the label
                slope = logs.exp_()
                slope.scatter_add_(-1, target, slope.new_full(target.shape, -1.0))
                if shares is not None:
                    slope *= shares[piece, None]
                slope = slope.to(dtype)
                if to_states is not None:
                    to_states[piece] = slope @ matrix
                if to_weight is not None and to_weight.dtype == dtype:
                    to_weight.addmm_(slope.mT, part)
                elif to_weight is not None:
                    to_weight += slope.mT @ part
                del logs, slope  # before the next piece's stand beside them
        ctx.gradients = to_states, to_weight
        ctx.mark_non_differentiable(nats)
        return nats.sum() if shares is None else nats @ shares, nats

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *outputs: Any) -> Any:
        """Scale what forward has made."""
        scale = outputs[0]
        if ctx.gradients is None:
            raise RuntimeError(
                "loss: wanted one pass backward, got a second; its gradients are gone"
            )
        # in place: with a large vocabulary a second copy of the matrix's would be the peak
        to_states, to_weight = (None if g is None else g.mul_(scale) for g in ctx.gradients)
        ctx.gradients = None
        return to_states, to_weight, None, None, None
