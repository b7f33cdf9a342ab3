"""Low-rank adapters beside the frozen linear layers of a model (LoRA, arXiv 2106.09685).

Takes any `nn.Module` and a `LoraConfig`; peft makes the layers (`pip install "cm3-train[lora]"`).
Order of a run: weights into the model, `add_adapters`, `CM3Module`, `fit`. Afterwards
`merge_adapters` makes the model a plain one; `CM3Module.export_state` gives merged weights.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn

from cm3_train.config import LoraConfig

_MARK = "lora_config"
"""Attribute of a model that has adapters."""
_ADAPTER = "default"
"""peft's name of an adapter that is the only one."""


def add_adapters(
    model: nn.Module, config: LoraConfig, generator: torch.Generator | None = None
) -> None:
    """Freeze a model in place, and put an adapter beside each linear layer that `config` names.

    An adapter starts as nothing: its second matrix is 0. Adapters are in float32 at least.

    Args:
        model: With the weights to start from.
        config: Rank, scale, and where.
        generator: Draws the first matrices; None takes torch's own.

    Raises:
        ImportError: peft is not installed.
        ValueError: The model has adapters, or a target is the name of no linear layer.
    """
    if adapters_of(model) is not None:
        raise ValueError("model: wanted one without adapters, got one that has them")
    _check_targets(model, config)
    try:
        import peft
    except ImportError as error:
        raise ImportError('LoRA needs peft: pip install "cm3-train[lora]"') from error
    model.requires_grad_(False)
    if config.bfloat16_base:
        model.to(torch.bfloat16)
    theirs = peft.LoraConfig(
        r=config.rank, lora_alpha=cast(int, config.alpha), target_modules=list(config.targets)
    )
    peft.inject_adapter_in_model(theirs, model, _ADAPTER)
    for _, _, layer in _adapted(model):
        for matrices in (layer.lora_A, layer.lora_B):
            matrix = matrices[_ADAPTER]
            matrix.to(torch.promote_types(matrix.weight.dtype, torch.float32))
        if generator is not None:  # as peft does, which draws from torch's own
            nn.init.kaiming_uniform_(
                layer.lora_A[_ADAPTER].weight, a=math.sqrt(5), generator=generator
            )
    setattr(model, _MARK, config)


def adapters_of(model: nn.Module) -> LoraConfig | None:
    """Return what a model's adapters were made with, None if it has none."""
    return getattr(model, _MARK, None)


def merge_adapters(model: nn.Module) -> None:
    """Add the adapters to the frozen weights in place; a plain model remains, as before them.

    Its weights are in float32 at least: bfloat16 would round away much of what an adapter has
    learnt. They stay frozen.

    Raises:
        ValueError: The model has no adapters.
    """
    weights = merged_weights(model)
    for parent, name, layer in list(_adapted(model)):
        setattr(parent, name, layer.get_base_layer())
    model.load_state_dict(weights, assign=True)
    delattr(model, _MARK)
    delattr(model, "peft_config")


@torch.no_grad()
def merged_weights(model: nn.Module) -> dict[str, Tensor]:
    """Return the weights that `merge_adapters` would leave, by the plain model's names; copies.

    Raises:
        ValueError: The model has no adapters.
    """
    if adapters_of(model) is None:
        raise ValueError("model: wanted adapters in it, got none")
    added = {id(layer.get_base_layer().weight): layer for _, _, layer in _adapted(model)}
    weights: dict[str, Tensor] = {}
    for name, value in model.state_dict(keep_vars=True).items():
        if ".lora_" in name:
            continue
        kind = value.dtype
        if value.is_floating_point():
            kind = torch.promote_types(kind, torch.float32)
        whole = value.detach().to(kind, copy=True)
        if id(value) in added:
            whole += added[id(value)].get_delta_weight(_ADAPTER)
        weights[name.replace(".base_layer.", ".")] = whole
    return weights


def _adapted(model: nn.Module) -> Iterator[tuple[nn.Module, str, Any]]:
    """Yield the layers with adapters, with the modules that hold them and their names there."""
    for parent in model.modules():
        for name, child in parent.named_children():
            if hasattr(child, "lora_A"):
                yield parent, name, child


def _check_targets(model: nn.Module, config: LoraConfig) -> None:
    names = [name for name, part in model.named_modules() if isinstance(part, nn.Linear)]
    last = {name.rpartition(".")[2] for name in names}
    for target in config.targets:
        if target not in last:
            raise ValueError(f"targets: wanted linear layers among {sorted(last)}, got {target!r}")
