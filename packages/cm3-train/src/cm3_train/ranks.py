"""What the processes of a run tell each other."""

from __future__ import annotations

from typing import TypeVar

import torch.distributed as dist

Value = TypeVar("Value")


def of_all_ranks(value: Value) -> list[Value]:
    """Return every process's value, in the order of the ranks; every process must call it."""
    if not (dist.is_available() and dist.is_initialized()):
        return [value]
    values: list[Value] = [value] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values
