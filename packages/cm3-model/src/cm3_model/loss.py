"""Cross-entropy of hidden states in pieces, so that the logits never stand in memory whole.

4096 positions with 64,512 logits are 1 GB in float32, and as much again for their gradient. Here
a piece of positions has its logits computed, used and dropped. With the head as a matrix, the
gradients of states and matrix come at once, while the logits are there (as in Liger Kernel, arXiv
2410.10989). With any other head backward computes the logits once more, but for the last piece's,
which it starts with: keeping those costs no memory at the peak.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint


def chunked_cross_entropy(
    hidden: Tensor,
    labels: Tensor,
    head: Tensor | Callable[[Tensor], Tensor],
    *,
    chunk_size: int = 1024,
    ignore_index: int = -100,
) -> Tensor:
    """Compute the mean loss in nats over the positions that count.

    Args:
        hidden: (..., D) last states, as `Decoder.hidden` gives them.
        labels: (...) the next ids, `ignore_index` where nothing counts.
        head: the matrix (V, D) of the logits, such as `Decoder.head_weight`: a quarter less
            arithmetic; or what maps (N, D) to logits (N, V), such as `Decoder.head`.
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

    if isinstance(head, Tensor):
        return _LinearCrossEntropy.apply(states, head, targets, chunk_size)

    def piece(states: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(head(states).float(), targets, reduction="sum")

    total = hidden.new_zeros((), dtype=torch.float32)
    for start in range(0, len(counts), chunk_size):
        part, target = states[start : start + chunk_size], targets[start : start + chunk_size]
        if torch.is_grad_enabled() and start + chunk_size < len(counts):
            total = total + checkpoint(piece, part, target, use_reentrant=False)
        else:
            total = total + piece(part, target)
    return total / len(counts)


class _LinearCrossEntropy(torch.autograd.Function):
    """Mean cross-entropy of states (N, D) under a matrix (V, D); gradients made in forward."""

    @staticmethod
    def forward(
        ctx: Any, states: Tensor, weight: Tensor, targets: Tensor, chunk_size: int
    ) -> Tensor:
        """Compute the loss, in float32."""
        device = states.device.type
        dtype = weight.dtype
        if torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)
        to_states = torch.empty_like(states) if ctx.needs_input_grad[0] else None
        to_weight = torch.zeros_like(weight) if ctx.needs_input_grad[1] else None
        total = states.new_zeros((), dtype=torch.float32)
        with torch.autocast(device, enabled=False):
            matrix = weight.to(dtype)
            for start in range(0, len(states), chunk_size):
                piece = slice(start, start + chunk_size)
                part, target = states[piece].to(dtype), targets[piece, None]
                logs = F.log_softmax(part @ matrix.mT, -1, dtype=torch.float32)  # (n, V)
                total -= logs.gather(-1, target).sum()
                if to_states is None and to_weight is None:
                    continue
                # the gradient of the logits: probability, less 1 at the label
                slope = logs.exp_()
                slope.scatter_add_(-1, target, slope.new_full(target.shape, -1.0))
                slope = slope.mul_(1 / len(states)).to(dtype)
                if to_states is not None:
                    to_states[piece] = slope @ matrix
                if to_weight is not None and to_weight.dtype == dtype:
                    to_weight.addmm_(slope.mT, part)
                elif to_weight is not None:
                    to_weight += slope.mT @ part
        ctx.gradients = to_states, to_weight
        return total / len(states)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *outputs: Any) -> Any:
        """Scale what forward has made."""
        (scale,) = outputs
        to_states, to_weight = (None if g is None else g * scale for g in ctx.gradients)
        return to_states, to_weight, None, None
