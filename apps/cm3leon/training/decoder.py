"""CM3 pretraining of the decoder with retrieved documents, through Lightning (paper 2.2)."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cm3_imagetok import VQGAN
from cm3_model import Decoder, DecoderConfig, save_decoder
from cm3_retrieval import training_context
from cm3_train import (
    BatchLoader,
    CM3Module,
    GroupOrder,
    SequenceBuilder,
    ValidationLoader,
    add_input_noise,
    collate,
    fit,
    group_repeats,
    load_weights,
)
from cm3leon.data.memory import Neighbours
from cm3leon.data.pairs import Pairs
from cm3leon.data.tokens import Retrieve, sequence_builder
from cm3leon.device import trainer_options
from cm3leon.parts import Documents, Tokenizers
from cm3leon.recipe import DecoderRecipe


def train_decoder(
    recipe: DecoderRecipe,
    tokenizers: Tokenizers,
    documents: Documents,
    pairs: Pairs,
    neighbours: Neighbours,
    folder: Path,
    *,
    retrieve: int,
    seed: int,
    device: torch.device,
    precision: str,
    checkpoint_every: int,
) -> None:
    """Train, and save the best model by held-out bits per code as `folder / "model"`.

    Args:
        recipe: Shape, sequences, objective, optimizer.
        tokenizers: The id space.
        documents: Text ids and codes of all pairs.
        pairs: The training split is trained on, the validation split chooses.
        neighbours: Candidates of each pair.
        folder: Keeps checkpoints and logs; a training that was stopped there goes on.
        retrieve: Documents before a held-out pair.
        seed: Of the weights and of all that is drawn.
        device: Where to train.
        precision: Lightning's name of it.
        checkpoint_every: Steps between two checkpoints.
    """
    vocabulary = tokenizers.vocabulary
    model = new_decoder(recipe, tokenizers, seed)
    block = vocabulary.image
    module = CM3Module(model, recipe.optim, (block.offset, block.stop))
    held_out = sequence_builder(
        tokenizers,
        documents,
        lambda key, epoch: neighbours.for_caption(key, retrieve),
        None,
        max_length=recipe.max_length,
        seed=seed,
        plain_share=1.0,
    )
    best = fit(
        module,
        training_batches(recipe, tokenizers, documents, pairs, neighbours, seed),
        ValidationLoader(
            held_out,
            pairs.keys[pairs.rows("validation")],
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
        **trainer_options(device),
    )
    load_weights(module, best)
    model.load_state_dict(module.export_state())
    save_decoder(model, folder / "model", {"vocabulary_sha256": vocabulary.sha256})


def training_batches(
    recipe: DecoderRecipe,
    tokenizers: Tokenizers,
    documents: Documents,
    pairs: Pairs,
    neighbours: Neighbours,
    seed: int,
) -> BatchLoader:
    """Return endless batches of training sequences; arguments as of `train_decoder`.

    A batch has one number of retrieved documents, drawn by `context_shares` from a generator of
    its first sample: so no row is padded to the length of another row's documents.
    """
    shares = np.array(recipe.context_shares) / sum(recipe.context_shares)
    codes = (tokenizers.vocabulary.image.offset, tokenizers.vocabulary.image.stop)
    rows = pairs.rows("train")
    groups = pairs.group_numbers[rows]

    def builder(count: int) -> SequenceBuilder:
        def retrieve(key: int, epoch: int) -> list[int]:
            return training_context(neighbours.training, key, n=count, seed=seed, epoch=epoch)

        found: Retrieve | None = retrieve if count else None
        return sequence_builder(
            tokenizers,
            documents,
            found,
            recipe.cm3,
            max_length=recipe.max_length,
            seed=seed,
            plain_share=plain_share_by_epoch(recipe, groups),
        )

    builders = [builder(count) for count in range(len(shares))]

    def make_batch(keys: np.ndarray, epochs: np.ndarray) -> dict[str, Tensor]:
        rng = np.random.default_rng((seed, 7, int(epochs[0]), int(keys[0])))
        build = builders[int(rng.choice(len(shares), p=shares))]
        sequences = [build(*pair) for pair in zip(keys.tolist(), epochs.tolist(), strict=True)]
        batch = collate(sequences, tokenizers.vocabulary.pad_id)
        return add_input_noise(batch, codes, recipe.input_noise, rng)

    order = GroupOrder(pairs.keys[rows], groups, recipe.group_power, seed, recipe.batch_size)
    return BatchLoader(make_batch, order)


def plain_share_by_epoch(recipe: DecoderRecipe, groups: np.ndarray):
    """Return epoch -> how often a training picture is shown as it is."""
    _, counts = np.unique(groups, return_counts=True)
    epoch_length = int(group_repeats(counts, recipe.group_power).sum())
    start, end = recipe.plain_share, recipe.final_plain_share
    end = start if end is None else end
    last = max(1, math.ceil(recipe.optim.total_steps * recipe.batch_size / epoch_length) - 1)
    return lambda epoch: start + (end - start) * min(1.0, epoch / last)


def new_decoder(recipe: DecoderRecipe, tokenizers: Tokenizers, seed: int) -> Decoder:
    """Return a decoder before its first step; arguments as of `train_decoder`."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Decoder(decoder_config(recipe, tokenizers.vocabulary.size))
    image, block = tokenizers.image, tokenizers.vocabulary.image
    if isinstance(image, VQGAN) and recipe.codebook_std:
        codes = model.token_embedding.weight[block.offset : block.stop]
        add_projected(codes, image.quantize.codebook.cpu(), recipe.codebook_std, seed)
    return model


@torch.no_grad()
def add_projected(embeddings: Tensor, vectors: Tensor, std: float, seed: int) -> None:
    """Add vectors (N, dim), projected at random, to embeddings (N, width) in place.

    A random projection keeps the angles between the vectors (Johnson and Lindenstrauss 1984).
    What is added has the standard deviation `std`.
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
