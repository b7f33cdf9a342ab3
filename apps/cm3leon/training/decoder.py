"""CM3 pretraining of the decoder with retrieved documents, through Lightning (paper 2.2)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger

from cm3_model import Decoder, operations_a_token, save_decoder
from cm3_model.parallel import parallelize
from cm3_train import (
    BatchLoader,
    CM3Module,
    Draw,
    LoraConfig,
    PackedLoader,
    Samples,
    Throughput,
    ValidationLoader,
    add_adapters,
    fit,
    load_weights,
)
from cm3_train.artifact import write_json
from cm3leon.data.memory import Neighbours
from cm3leon.data.tokens import sequence_builder
from cm3leon.decoder_recipe import DecoderRecipe
from cm3leon.joined_tokenizers import Tokenizers
from cm3leon.named_parts import part_of
from cm3leon.parts import Documents
from cm3leon.processes import fit_options, is_first
from cm3leon.trainer_recipe import TrainerRecipe
from cm3leon.training.initial_weights import start_from
from cm3leon.training.sequences import (
    OBJECTIVE_FILE,
    objective_figures,
    training_batches,
    training_sequences,
)


def train_decoder(
    recipe: DecoderRecipe,
    tokenizers: Tokenizers,
    documents: Documents,
    train: np.ndarray,
    validation: np.ndarray,
    neighbours: Neighbours,
    folder: Path,
    *,
    retrieve: int,
    seed: int,
    device: torch.device,
    precision: str,
    checkpoint_every: int,
    trainer: TrainerRecipe | None = None,
    draw: Draw | None = None,
) -> None:
    """Train, and save the best model by held-out bits per code as `folder / "model"`.

    Where several processes train, all of them call this, and the first one saves.

    Args:
        recipe: Shape, sequences, objective, optimizer.
        tokenizers: The id space.
        documents: Text ids and codes of all pairs.
        train: (N,) keys of the pairs that are trained on.
        validation: (V,) keys of the pairs that choose.
        neighbours: Candidates of each pair.
        folder: Keeps checkpoints and logs; a training that was stopped there goes on.
        retrieve: Documents before a held-out pair.
        seed: Of the weights and of all that is drawn.
        device: Where to train.
        precision: Lightning's name of it.
        checkpoint_every: Steps between two checkpoints.
        trainer: Processes, bad steps, checkpoints, logs; None is one process.
        draw: Called at validations as the recipe's `sample_every` says.
    """
    trainer = trainer or TrainerRecipe()
    vocabulary = tokenizers.vocabulary
    held_out = sequence_builder(
        tokenizers,
        documents,
        lambda key, epoch: neighbours.for_caption(key, retrieve),
        None,
        max_length=recipe.max_length,
        seed=seed,
        plain_share=1.0,
        query_only=True,
    )
    sequences = training_sequences(recipe, tokenizers, documents, neighbours, seed)
    if is_first():
        figures = objective_figures(sequences, train, tokenizers.vocabulary)
        write_json(folder / OBJECTIVE_FILE, figures)
    fit_decoder(
        recipe,
        tokenizers,
        lambda rank, ranks: training_batches(
            recipe,
            sequences,
            train,
            seed,
            pad_id=vocabulary.pad_id,
            rank=rank,
            ranks=ranks,
            workers=trainer.workers,
        ),
        lambda rank, ranks: ValidationLoader(
            held_out,
            validation,
            recipe.val_batch_size,
            pad_id=vocabulary.pad_id,
            rank=rank,
            world_size=ranks,
        ),
        folder,
        seed=seed,
        device=device,
        precision=precision,
        checkpoint_every=checkpoint_every,
        trainer=trainer,
        draw=draw,
    )


def fit_decoder(
    recipe: DecoderRecipe,
    tokenizers: Tokenizers,
    batches: Callable[[int, int], BatchLoader | PackedLoader],
    validation: Callable[[int, int], ValidationLoader],
    folder: Path,
    *,
    seed: int,
    device: torch.device,
    precision: str,
    checkpoint_every: int,
    trainer: TrainerRecipe,
    draw: Draw | None = None,
    monitor: str = "val/bits_per_code",
    lora: LoraConfig | None = None,
) -> None:
    """Train on batches, and save the best model by `monitor` as `folder / "model"`.

    Args:
        recipe: Shape, optimizer, sizes.
        tokenizers: The id space.
        batches: `(rank, ranks) -> loader` of training.
        validation: `(rank, ranks) -> loader` of what chooses.
        folder: As of `train_decoder`; so the rest.
        seed: Of new weights.
        device: Where to train.
        precision: Lightning's name of it.
        checkpoint_every: Steps between two checkpoints.
        trainer: Processes, bad steps, checkpoints, logs.
        draw: Called at validations as the recipe's `sample_every` says.
        monitor: The figure of validation that chooses, the least being best.
        lora: Trains adapters alone, beside the weights of `init_from`; what is saved is merged.
    """
    best = fit(
        decoder_module(recipe, tokenizers, seed, trainer, lora),
        batches,
        validation,
        run_dir=folder,
        max_steps=recipe.optim.total_steps,
        val_every=recipe.val_every,
        checkpoint_every=checkpoint_every,
        precision=precision,
        monitor=monitor,
        description="decoder",
        accumulate=recipe.accumulate(trainer.ranks),
        bad_steps=trainer.bad_steps,
        spike_factor=trainer.spike_factor,
        loggers=[
            part_of(named, "trainer.loggers", Logger, trust=True) for named in trainer.loggers
        ],
        callbacks=callbacks_of(recipe, tokenizers, draw),
        **fit_options(device, trainer, together=True),
    )
    if not is_first():
        return
    whole = decoder_module(replace(recipe, compile=False), tokenizers, seed, TrainerRecipe(), lora)
    load_weights(whole, best)
    model = new_decoder(recipe, tokenizers, seed)
    model.load_state_dict(whole.export_state())
    extra = {"vocabulary_sha256": tokenizers.vocabulary.sha256}
    save_decoder(model, folder / "model", extra)


def callbacks_of(
    recipe: DecoderRecipe, tokenizers: Tokenizers, draw: Draw | None
) -> list[Callback]:
    """Return what goes on beside the steps; arguments as of `train_decoder`."""
    config = recipe.config(tokenizers.vocabulary.size, codes_of(tokenizers))
    speed = Throughput(operations_a_token(config, recipe.max_length))
    if draw is None or not recipe.sample_every:
        return [speed]
    return [speed, Samples(draw, recipe.sample_every)]


def decoder_module(
    recipe: DecoderRecipe,
    tokenizers: Tokenizers,
    seed: int,
    trainer: TrainerRecipe,
    lora: LoraConfig | None = None,
) -> CM3Module:
    """Return what is trained; arguments as of `train_decoder`."""
    model = new_decoder(recipe, tokenizers, seed)
    if recipe.init_from is not None:
        start_from(model, recipe.init_from, tokenizers.vocabulary.sha256)
    if lora is not None:
        add_adapters(model, lora, torch.Generator().manual_seed(seed))
    model.activation_checkpointing = recipe.activation_checkpointing
    shard = parallelize if trainer.strategy == "fsdp2" and trainer.processes > 1 else None
    module = CM3Module(model, recipe.optim, codes_of(tokenizers), shard=shard)
    if recipe.compile:
        for one in [model] if module.averaged is None else [model, module.averaged.module]:
            cast(Decoder, one).compile_blocks()
    return module


def codes_of(tokenizers: Tokenizers) -> tuple[int, int]:
    """Return the ids of image codes, `first <= id < stop`."""
    return tokenizers.vocabulary.image.offset, tokenizers.vocabulary.image.stop


def new_decoder(recipe: DecoderRecipe, tokenizers: Tokenizers, seed: int) -> Decoder:
    """Return a decoder before its first step; arguments as of `train_decoder`."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Decoder(recipe.config(tokenizers.vocabulary.size, codes_of(tokenizers)))
