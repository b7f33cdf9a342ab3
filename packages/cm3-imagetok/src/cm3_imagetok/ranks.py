"""Sums over the processes of a distributed training, so that all keep one codebook."""

from __future__ import annotations

from torch import Tensor, distributed


def num_ranks() -> int:
    """Return the number of processes that train together, 1 without `torch.distributed`."""
    alone = not (distributed.is_available() and distributed.is_initialized())
    return 1 if alone else distributed.get_world_size()


def sum_over_ranks(x: Tensor) -> Tensor:
    """Add up a tensor over all processes, in place, and return it; every process must call."""
    if num_ranks() > 1:
        distributed.all_reduce(x)
    return x
