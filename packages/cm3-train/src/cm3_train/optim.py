"""Optimizers and schedules: AdamW, also in 8 bits, or Muon for the hidden matrices.

Takes a model and a frozen config; gives a torch Optimizer (one, whatever the kind, so that
Lightning and checkpoints see nothing special) and a LambdaLR.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from cm3_train.config import OptimConfig
from cm3_train.eight_bits import adamw_8bit
from cm3_train.lora import adapters_of
from cm3_train.matrix_roles import matrix_blocks
from cm3_train.muon import MuonAdamW
from cm3_train.sharded_tensors import by_mesh


def build_optimizer(
    model: nn.Module, config: OptimConfig, rates: Mapping[str, float] | None = None
) -> torch.optim.Optimizer:
    """Return the optimizer of `config` over the trainable parameters of `model`.

    Weight decay falls on parameters of two and more dimensions only. Make it once the model is
    split over processes, if it is: a group then holds parameters of one mesh.

    Args:
        model: Whose parameters are trained.
        config: How.
        rates: Peak rates of parts by the start of their parameters' names, such as
            `{"discriminator.": 2e-4}`. They take AdamW without weight decay, whatever the config.

    Raises:
        ImportError: Of "adamw8bit": torchao is not installed.
        ValueError: A part of `rates` has no trainable parameter, or the optimizer is not for such a
            model: "muon" not for adapters, "adamw8bit" not for one that is split over processes.
    """
    if config.name == "muon" and adapters_of(model) is not None:
        # it would move a factor of a product as if it were the product
        raise ValueError("optim.name: wanted adamw or adamw8bit for adapters, got muon")
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    groups: list[dict[str, Any]] = []
    for start, rate in (rates or {}).items():
        part = [name for name in named if name.startswith(start)]
        if not part:
            tops = sorted({name.partition(".")[0] for name in named})
            raise ValueError(
                f"rates: wanted starts of the names of trainable parameters, which are in {tops} "
                f"(a part that an earlier start took is gone), got {start!r}"
            )
        groups.append(
            {"params": [named.pop(name) for name in part], "lr": rate, "weight_decay": 0.0}
        )
    blocks = matrix_blocks(model) if config.name == "muon" else {}
    rest = [p for name, p in named.items() if name not in blocks]
    groups += [
        {"params": [p for p in rest if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in rest if p.ndim < 2], "weight_decay": 0.0},
    ]
    for number in sorted(set(blocks.values())):
        groups.append(
            {
                "params": [p for name, p in named.items() if blocks.get(name) == number],
                "kind": "muon",
                "blocks": number,
                "lr": config.muon_lr,
                "weight_decay": config.weight_decay,
            }
        )
    groups = [{**group, "params": part} for group in groups for part in by_mesh(group["params"])]
    if config.name == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, fused=True)
    if config.name == "adamw8bit":
        return adamw_8bit(groups, lr=config.lr, betas=config.betas)
    return MuonAdamW(groups, lr=config.lr, betas=config.betas)


def build_schedule(optimizer: torch.optim.Optimizer, config: OptimConfig) -> LambdaLR:
    """Return a schedule that multiplies every group's peak rate by `lr_share(config)`."""
    return LambdaLR(optimizer, lr_share(config))


def lr_share(config: OptimConfig) -> Callable[[int], float]:
    """Return the function from step to the share of the peak rate."""

    def share(step: int) -> float:
        if step < config.warmup_steps:
            return (step + 1) / config.warmup_steps
        if config.schedule == "constant":
            return 1.0
        done = (step - config.warmup_steps) / (config.total_steps - config.warmup_steps)
        done = min(1.0, done)
        if config.schedule == "cosine":
            left = (1 + math.cos(math.pi * done)) / 2
        else:
            left = (1 - done) ** (config.power if config.schedule == "polynomial" else 1)
        return config.final_lr_share + (1 - config.final_lr_share) * left

    return share
