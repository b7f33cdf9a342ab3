"""Tensors that may be split over processes: their local parts, and the norm of a mixed list.

FSDP2 and tensor parallelism make some parameters `DTensor`s, over one mesh or another, and leave
others plain. PyTorch's kernels over lists refuse such a mixture. What goes element by element can
run on the local parts instead.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, Replicate
from torch.nn.utils import get_total_norm


def mesh_of(tensor: Tensor) -> Hashable:
    """Return the mesh of processes that a tensor is split over, None for a plain one."""
    return tensor.device_mesh if isinstance(tensor, DTensor) else None


def by_mesh(tensors: Iterable[Tensor]) -> list[list[Tensor]]:
    """Group tensors that one kernel over lists takes, in the order of each group's first."""
    groups: dict[Hashable, list[Tensor]] = defaultdict(list)
    for tensor in tensors:
        groups[mesh_of(tensor)].append(tensor)
    return list(groups.values())


def local(tensor: Tensor) -> Tensor:
    """Return this process's part, which shares the tensor's memory; a plain tensor is whole."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def local_gradient(parameter: Tensor) -> Tensor:
    """Return this process's part of a parameter's gradient, split as the parameter is."""
    gradient = parameter.grad
    assert gradient is not None  # the caller chose those that have one
    if isinstance(parameter, DTensor) and isinstance(gradient, DTensor):
        gradient = gradient.redistribute(placements=parameter.placements)
    return local(gradient)


def whole(part: Tensor, like: Tensor) -> Tensor:
    """Gather the parts of a tensor that is split as `like` is: the same whole in every process."""
    if not isinstance(like, DTensor):
        return part
    split = DTensor.from_local(
        part, like.device_mesh, like.placements, shape=like.shape, stride=like.stride()
    )
    return split.full_tensor()


def part_of(tensor: Tensor, like: Tensor) -> Tensor:
    """Return this process's part of a whole tensor that all have: the inverse of `whole`."""
    if not isinstance(like, DTensor):
        return tensor
    same = DTensor.from_local(tensor, like.device_mesh, [Replicate()] * like.device_mesh.ndim)
    return same.redistribute(placements=like.placements).to_local()


@torch.no_grad()
def clip_gradients(parameters: Iterable[Tensor], limit: float) -> Tensor:
    """Shorten the gradients in place to a norm of at most `limit`; return their norm, a scalar.

    As `torch.nn.utils.clip_grad_norm_`, for parameters of any mixture.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    norms = [get_total_norm(part) for part in by_mesh(gradients)]
    norms = [norm.full_tensor() if isinstance(norm, DTensor) else norm for norm in norms]
    norm = norms[0] if len(norms) == 1 else get_total_norm(norms)
    torch._foreach_mul_([local(g) for g in gradients], (limit / (norm + 1e-6)).clamp(max=1.0))
    return norm
