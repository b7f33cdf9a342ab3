"""A running mean of weights, which is often better than the last ones."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from cm3_train.sharded_tensors import local, mesh_of


def averaged_model(model: nn.Module, decay: float) -> AveragedModel:
    """Return a frozen copy of a model whose `update_parameters` follows the model.

    The copy is in float32 at least, and stays so when it is moved or cast with what holds it: in
    bfloat16 a step towards the model's weights would be rounded away. Weights that are frozen are
    the model's own, not copied.

    Args:
        model: The one that is trained; its buffers are copied as they are. If its weights are split
            over processes, split those of the copy's `module` likewise.
        decay: Share of the old mean that stays. Early on it is less: the mean of few steps is
            better than a mean with the random start.
    """
    return _Averaged(model, decay).requires_grad_(False)


class _Averaged(AveragedModel):
    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(nn.Identity())  # its own copy would have the frozen weights twice
        frozen = {id(p): p for p in model.parameters() if not p.requires_grad}
        self.module = copy.deepcopy(model, frozen)
        self.decay = decay
        for tensor in [*self.module.parameters(), *self.module.buffers()]:
            if id(tensor) not in frozen:
                tensor.data = _at_least_float32(tensor.data)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
        """Move as `fn` does, and keep every type."""

        def moved(tensor: Tensor) -> Tensor:
            new = fn(tensor)
            return new if new.dtype == tensor.dtype else tensor.to(new.device)

        return super()._apply(moved, recurse)

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Move the mean towards the model's weights; the first ones are taken whole.

        Raises:
            ValueError: Only one of the two is split over processes.
        """
        count = int(self.n_averaged)
        share = min(self.decay, (1 + count) / (10 + count)) if count else 0.0
        kept, new = list(self.module.parameters()), list(model.parameters())
        pairs = [both for both in zip(kept, new, strict=True) if both[0] is not both[1]]
        for mine, other in pairs:
            if mesh_of(mine) != mesh_of(other):
                raise ValueError(
                    f"averaged weights: wanted them split over processes as the model's "
                    f"({mesh_of(other)}), got {mesh_of(mine)}; split `averaged.module` too"
                )
        parts = [local(mine) for mine, _ in pairs]
        targets = [local(other).to(part) for (_, other), part in zip(pairs, parts, strict=True)]
        torch._foreach_lerp_(parts, targets, 1 - share)
        for buffer, other in zip(self.module.buffers(), model.buffers(), strict=True):
            buffer.copy_(other)
        self.n_averaged += 1


def _at_least_float32(tensor: Tensor) -> Any:
    if not tensor.is_floating_point():
        return tensor
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
