"""Several processes that run the same command: torchrun's, SLURM's or Lightning's own.

The first one makes the stages. The others wait until a stage is made, but for the decoder's
training, which all do together.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from cm3leon.trainer_recipe import TrainerRecipe

if TYPE_CHECKING:
    import torch


def is_first() -> bool:
    """Tell whether this is the first process, or the only one."""
    if "RANK" in os.environ:  # torchrun
        return os.environ["RANK"] == "0"
    if int(os.environ.get("SLURM_NTASKS", "1")) > 1 and "SLURM_PROCID" in os.environ:
        return os.environ["SLURM_PROCID"] == "0"
    # Lightning starts the command again, once for each further device
    return not any(int(os.environ.get(name, "0")) for name in ("NODE_RANK", "LOCAL_RANK"))


def own_device(device: torch.device, trainer: TrainerRecipe) -> torch.device:
    """Return this process's device, of those that share a node."""
    if device.type != "cuda" or trainer.devices == 1:
        return device
    import torch

    place = os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", "0"))
    return torch.device("cuda", int(place))


def fit_options(device: torch.device, trainer: TrainerRecipe, together: bool) -> dict[str, Any]:
    """Return what tells `cm3_train.fit` where to train.

    Args:
        device: This process's.
        trainer: How many processes, and what each holds.
        together: Whether all processes train; else the first one does, alone.
    """
    from lightning.fabric.plugins.environments.lightning import LightningEnvironment
    from lightning.pytorch.strategies import ModelParallelStrategy

    options: dict[str, Any] = {"accelerator": device.type, "keep_last": trainer.keep_last}
    if not together or trainer.processes == 1:
        devices = [device.index or 0] if device.type == "cuda" else 1
        # whatever torchrun or SLURM say of other processes
        return {**options, "devices": devices, "plugins": [LightningEnvironment()]}
    strategy: Any = "ddp"
    if trainer.strategy == "fsdp2":
        strategy = ModelParallelStrategy(
            data_parallel_size=trainer.ranks, tensor_parallel_size=trainer.tensor_parallel
        )
    return {
        **options,
        "devices": trainer.devices,
        "num_nodes": trainer.num_nodes,
        "strategy": strategy,
    }
