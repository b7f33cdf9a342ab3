"""AdamW whose two moments take a byte a weight each (arXiv 2110.02861), from torchao.

Blocks of 256 numbers share a scale. Parameters with fewer than 4,096 numbers, or with another
number of them than a multiple of 256, keep moments of their own type. torchao compiles the step, so
on a CPU it needs a C++ compiler.
"""

from __future__ import annotations

from typing import Any

import torch

from cm3_train.sharded_tensors import mesh_of


def require_torchao() -> Any:
    """Return torchao's optimizers.

    Their import lets `torch.load(weights_only=True)` read the class of their states, which holds
    three tensors and plain values.

    Raises:
        ImportError: torchao is not installed.
    """
    try:
        from torchao import optim
    except ImportError as error:
        message = 'optim.name "adamw8bit" needs torchao: pip install "cm3-train[adamw8bit]"'
        raise ImportError(message) from error
    return optim


def adamw_8bit(
    groups: list[dict[str, Any]], *, lr: float, betas: tuple[float, float]
) -> torch.optim.Optimizer:
    """Return the optimizer; arguments as of `torch.optim.AdamW`.

    Raises:
        ImportError: torchao is not installed.
        ValueError: A parameter is split over processes.
    """
    if any(mesh_of(parameter) is not None for group in groups for parameter in group["params"]):
        raise ValueError(
            "optim.name: wanted adamw or muon for a model that is split, got adamw8bit"
        )
    return require_torchao().AdamW8bit(groups, lr=lr, betas=betas)
