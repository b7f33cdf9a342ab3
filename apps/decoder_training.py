"""CM3 pretraining of the decoder with retrieved documents, through Lightning (paper 2.2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from recipe import DecoderRecipe
from torch import Tensor

from cm3_model import Decoder, DecoderConfig, save_decoder
from cm3_retrieval import NeighbourTable, training_context
from cm3_texttok import Vocabulary
from cm3_train import (
    BatchLoader,
    CM3Config,
    CM3Module,
    GroupOrder,
    SequenceBuilder,
    ValidationLoader,
    add_input_noise,
    collate,
    fit,
    load_weights,
)

Retrieve = Callable[[int, int], Sequence[int]]
"""(key of a pair, epoch) -> keys of the documents that stand before it."""


def train_decoder(
    recipe: DecoderRecipe,
    vocabulary: Vocabulary,
    sequences: Callable[[Retrieve | None, CM3Config | None], SequenceBuilder],
    neighbours: NeighbourTable,
    held_out_documents: Retrieve,
    train: np.ndarray,
    groups: np.ndarray,
    held_out: np.ndarray,
    codebook: Tensor | None,
    folder: Path,
    *,
    seed: int,
    precision: str,
    checkpoint_every: int,
) -> None:
    """Train, and save the best model by held-out bits per code as ``folder / "model"``.

    Args:
        recipe: Shape, sequences, objective, optimizer.
        vocabulary: The joint id space.
        sequences: (retrieval, objective) to what builds sequences.
        neighbours: Candidates of each training pair.
        held_out_documents: Documents of a held-out pair.
        train: Keys that are trained on.
        groups: The group of each, a number.
        held_out: Keys that choose the best checkpoint.
        codebook: The tokenizer's code vectors (num_codes, dim), if it has any, for
            `DecoderRecipe.codebook_std`.
        folder: Keeps checkpoints and logs; a training that was stopped there goes on.
        seed: Of the weights and of all that is drawn.
        precision: Lightning's name of it.
        checkpoint_every: Steps between two checkpoints.
    """
    model = new_decoder(recipe, vocabulary, codebook, seed)
    block = vocabulary.image
    module = CM3Module(model, recipe.optim, (block.offset, block.stop))
    batches = training_batches(recipe, vocabulary, sequences, neighbours, train, groups, seed)
    best = fit(
        module,
        batches,
        ValidationLoader(
            sequences(held_out_documents, None),
            held_out,
            64,
            pad_id=vocabulary.pad_id,
            query_break_id=vocabulary.break_id,
        ),
        run_dir=folder,
        max_steps=recipe.optim.total_steps,
        val_every=recipe.val_every,
        checkpoint_every=checkpoint_every,
        precision=precision,
        monitor="val/bits_per_code",
        description="decoder",
    )
    load_weights(module, best)
    model.load_state_dict(module.export_state())
    save_decoder(model, folder / "model", {"vocabulary_sha256": vocabulary.sha256})


def training_batches(
    recipe: DecoderRecipe,
    vocabulary: Vocabulary,
    sequences: Callable[[Retrieve | None, CM3Config | None], SequenceBuilder],
    neighbours: NeighbourTable,
    train: np.ndarray,
    groups: np.ndarray,
    seed: int,
) -> BatchLoader:
    """Endless batches of training sequences; arguments as of `train_decoder`.

    A batch has one number of retrieved documents, drawn by `context_shares` from a generator of
    its first sample: so no row is padded to the length of another row's documents.
    """
    shares = np.array(recipe.context_shares) / sum(recipe.context_shares)
    codes = (vocabulary.image.offset, vocabulary.image.stop)

    def builder(count: int) -> SequenceBuilder:
        def retrieve(key: int, epoch: int) -> list[int]:
            return training_context(neighbours, key, n=count, seed=seed, epoch=epoch)

        return sequences(retrieve if count else None, recipe.cm3)

    builders = [builder(count) for count in range(len(shares))]

    def make_batch(keys: np.ndarray, epochs: np.ndarray) -> dict[str, Tensor]:
        rng = np.random.default_rng((seed, 7, int(epochs[0]), int(keys[0])))
        build = builders[int(rng.choice(len(shares), p=shares))]
        pairs = zip(keys.tolist(), epochs.tolist(), strict=True)
        batch = collate([build(*pair) for pair in pairs], vocabulary.pad_id)
        return add_input_noise(batch, codes, recipe.input_noise, rng)

    order = GroupOrder(train, groups, recipe.group_power, seed, recipe.batch_size)
    return BatchLoader(make_batch, order)


def new_decoder(
    recipe: DecoderRecipe, vocabulary: Vocabulary, codebook: Tensor | None, seed: int
) -> Decoder:
    """A decoder before its first step; arguments as of `train_decoder`."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Decoder(decoder_config(recipe, vocabulary.size))
    if codebook is not None and recipe.codebook_std:
        codes = model.token_embedding.weight[vocabulary.image.offset : vocabulary.image.stop]
        add_projected(codes, codebook, recipe.codebook_std, seed)
    return model


@torch.no_grad()
def add_projected(embeddings: Tensor, vectors: Tensor, std: float, seed: int) -> None:
    """Add vectors (N, dim), projected at random, to embeddings (N, width) in place.

    A random projection keeps the angles between the vectors (Johnson and Lindenstrauss 1984).
    What is added has the standard deviation ``std``.
    """
    vectors = vectors.detach().float() - vectors.detach().float().mean(0)
    width, dim = embeddings.shape[1], vectors.shape[1]
    generator = torch.Generator().manual_seed(seed)
    projected = vectors @ torch.randn(dim, width, generator=generator)
    embeddings += std / projected.std() * projected


def decoder_config(recipe: DecoderRecipe, vocab_size: int) -> DecoderConfig:
    """Shape of the decoder for a vocabulary."""
    return DecoderConfig(
        vocab_size=vocab_size,
        max_length=recipe.max_length,
        num_layers=recipe.num_layers,
        width=recipe.width,
        num_heads=recipe.num_heads,
        activation=recipe.activation,
        positions=recipe.positions,
        qk_norm=recipe.qk_norm,
        init_std=recipe.init_std,
    )
