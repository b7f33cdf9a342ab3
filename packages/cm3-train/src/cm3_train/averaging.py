"""A running mean of weights, which is often better than the last ones."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel


def averaged_model(model: nn.Module, decay: float) -> AveragedModel:
    """Return a frozen copy of a model whose `update_parameters` follows the model.

    Args:
        model: The one that is trained; its buffers are copied as they are.
        decay: Share of the old mean that stays. Early on it is less: the mean of few steps is
            better than a mean with the random start.
    """

    def average(kept: Any, new: Any, count: Any) -> None:
        share = min(decay, (1 + int(count)) / (10 + int(count)))
        torch._foreach_lerp_(kept, new, 1 - share)

    return AveragedModel(model, multi_avg_fn=average).requires_grad_(False)
