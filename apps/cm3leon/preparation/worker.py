"""What runs in each process: the models, opened once, and the two passes over a shard."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from cm3_retrieval import RetrievalConfig
from cm3_retrieval.interface import Encoder
from cm3_retrieval.picture_file import shown
from cm3_retrieval.sealed_folder import MANIFEST_NAME
from cm3leon import parts
from cm3leon.device import device_of, make_deterministic
from cm3leon.joined_tokenizers import Tokenizers
from cm3leon.preparation.decisions import encoded
from cm3leon.preparation.encoding import ShardEncoder
from cm3leon.preparation.finishing import ShardFinisher
from cm3leon.preparation.job import Job
from cm3leon.preparation.source import Shard, Source, open_source
from cm3leon.recipe import Recipe
from cm3leon.stages import read_object

PLAN = "plan.json"
"""Made by the driver between the passes: the strategy, and whose pixels are kept."""


class Worker:
    """One process's models and its work on shards, of which each leaves a sealed folder."""

    def __init__(self, job: Job) -> None:
        self.job = job

    @cached_property
    def models(self) -> tuple[Tokenizers, Encoder]:
        """The tokenizers and the encoder."""
        settle_torch()
        return open_models(self.job.recipe, trust=self.job.trust)

    @cached_property
    def source(self) -> Source:
        """The raw pairs."""
        return open_source(self.job.options.source, self.job.work)

    @cached_property
    def encoder(self) -> ShardEncoder:
        """The first pass."""
        return ShardEncoder(self.job, self.source, *self.models)

    @cached_property
    def finisher(self) -> ShardFinisher:
        """The second pass."""
        plan = read_object(self.job.work / PLAN, "rules")
        rules = RetrievalConfig(**plan["rules"])
        return ShardFinisher(self.job, self.source, *self.models, rules)

    def encode(self, number: int, shard: Shard) -> None:
        """Encode a shard."""
        self.encoder.encode(shard, encoded(self.job.work, number))

    def finish(self, number: int, shard: Shard) -> None:
        """Finish a shard."""
        wanted = read_object(self.job.work / PLAN, "pixels")["pixels"].get(str(number), [])
        folder = finished(self.job.work, number)
        self.finisher.finish(number, shard, np.array(wanted, np.int64), folder)

    def run(self, task: str, number: int, shard: Shard) -> None:
        """Do `encode` or `finish`.

        Args:
            task: Which of them.
            number: The shard's place among all, as the driver counts: a source that still grows
                would number them anew.
            shard: What to read.
        """
        {"encode": self.encode, "finish": self.finish}[task](number, shard)


def finished(work: Path, shard: int) -> Path:
    """Return the sealed folder of a finished shard."""
    return work / "finished" / f"{shard:06}"


def is_sealed(folder: Path, fingerprint: str, shard: Shard) -> bool:
    """Tell whether a shard's folder is whole, and of this job.

    Raises:
        ValueError: It is of another part of the source.
    """
    try:
        found = read_object(folder / MANIFEST_NAME, "job", "shard")
    except (OSError, ValueError):
        return False
    if found["job"] != fingerprint:
        return False
    if found["shard"] != shard.name:
        raise ValueError(
            f"{shown(folder)}: wanted what was made of {shard.name}, got {found['shard']}: the "
            "source has changed meanwhile; prepare it into another folder"
        )
    return True


def settle_torch() -> None:
    """Let torch compute the same bits in every process.

    With one thread sums are split alike on every machine, and workers, not threads, fill the cores.
    """
    torch.set_num_threads(1)
    make_deterministic()


def open_models(recipe: Recipe, *, trust: bool) -> tuple[Tokenizers, Encoder]:
    """Open the tokenizers and the encoder of the prepared folder, which is the recipe's."""
    encoder = parts.open_encoder(recipe, device_of(recipe.device), trust=trust)
    return open_tokenizers(recipe, trust=trust), encoder


def open_tokenizers(recipe: Recipe, *, trust: bool) -> Tokenizers:
    """Open the tokenizers of the recipe's parts."""
    device = device_of(recipe.device)
    text = parts.open_text_tokenizer(recipe, trust=trust)
    image = parts.open_image_tokenizer(recipe, device, trust=trust)
    return parts.join_tokenizers(text, image, recipe, device)
