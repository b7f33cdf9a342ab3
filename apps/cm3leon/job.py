"""A run that is being made: its recipe, its stages, and where they compute."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from cm3_model import read_manifest
from cm3leon.data.prepared import settled
from cm3leon.device import device_of, precision_on
from cm3leon.named_parts import callable_of
from cm3leon.processes import is_first, own_device
from cm3leon.recipe import Recipe
from cm3leon.stages import Stages


@dataclass(frozen=True, kw_only=True)
class Job:
    """A recipe, the stages that it makes, and where."""

    recipe: Recipe
    stages: Stages
    device: torch.device
    precision: str
    trust: bool
    """Whether the recipe's classes may be of others: its user has named them."""


def start(recipe: Recipe) -> Job:
    """Take hold of the run's folder; of several processes with the same command the first does.

    Where pairs are prepared, the job's recipe has what the prepared folder decides.

    Raises:
        BlockingIOError: Another run works there.
        FileNotFoundError: There is no finished prepared folder.
        ValueError: This machine has no such device, the prepared folder does not fit, there are no
            weights to start from, a logger's class is not there, or a pretraining is to make no
            memory bank.
    """
    if recipe.base is None and not recipe.retrieval.bank:
        raise ValueError("retrieval.bank: wanted true, as a pretraining makes one, got false")
    recipe, trust = settled(recipe)
    # what the decoder's training would stumble over is told before any work
    if recipe.decoder.init_from is not None:
        read_manifest(recipe.decoder.init_from)
    for named in recipe.trainer.loggers:
        callable_of(named, "trainer.loggers")
    device = own_device(device_of(recipe.device), recipe.trainer)
    return Job(
        recipe=recipe,
        stages=Stages(recipe.folder, first=is_first()),
        device=device,
        precision=precision_on(device, recipe.precision),
        trust=trust,
    )
