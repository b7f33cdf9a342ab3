"""A small decoder that learns from documents with sounds: the CM3 objective, with retrieval."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cm3_model import Decoder, DecoderConfig, save_decoder
from cm3_retrieval import NeighbourTable, training_context
from cm3_train import (
    BatchLoader,
    CM3Config,
    CM3Module,
    OptimConfig,
    SampleOrder,
    SequenceBuilder,
    TokenShards,
    ValidationLoader,
    collate,
    fit,
    load_weights,
)
from sound_documents import SoundDocuments

MAX_LENGTH = 160
"""Ids of a document and a pair, and of the masks between."""
WITH_DOCUMENT = 0.75
"""Share of the batches in which a retrieved document goes before each pair."""
BATCH = 16
OBJECTIVE = CM3Config(mask_probability=0.5, whole_text_probability=0.7)
"""Mostly whole captions are cut out: so the model learns to write them."""


def train_decoder(
    documents: SoundDocuments,
    shards: TokenShards,
    table: NeighbourTable,
    keys: Sequence[int],
    validation: Sequence[int],
    folder: Path,
    *,
    steps: int,
    seed: int,
) -> Decoder:
    """Train a decoder on pairs.

    Args:
        documents: The id space and its layouts.
        shards: Ids and codes of all pairs.
        table: Neighbours of the training pairs.
        keys: Of the training pairs; one that is here twice is trained on twice as often.
        validation: Keys of pairs whose bits are logged, without documents.
        folder: Takes checkpoints, logs and the trained `model`.
        steps: How many.
        seed: Of weights, order and all that is drawn.
    """
    words, codes = documents.vocabulary, (documents.block.offset, documents.block.stop)

    def builder(with_document: bool, objective: CM3Config | None) -> SequenceBuilder:
        def retrieve(key: int, epoch: int) -> list[int]:
            return training_context(table, key, n=1, seed=seed, epoch=epoch)

        return SequenceBuilder(
            shards,
            documents.training,
            retrieve if with_document else None,
            objective,
            eos_id=words.eos_id,
            break_id=words.break_id,
            infill_id=words.infill_id,
            mask_ids=words.mask_ids,
            max_length=MAX_LENGTH,
            seed=seed,
            query_only=objective is None,
        )

    plain, preceded = builder(False, OBJECTIVE), builder(True, OBJECTIVE)

    def batch(keys: np.ndarray, epochs: np.ndarray, position: int) -> dict[str, Tensor]:
        # all rows of a batch have a document, or none: so little is padded
        drawn = np.random.default_rng((seed, position)).random()
        build = preceded if drawn < WITH_DOCUMENT else plain
        pairs = zip(keys.tolist(), epochs.tolist(), strict=True)
        return collate([build(key, epoch) for key, epoch in pairs], words.pad_id)

    config = DecoderConfig(
        vocab_size=words.size,
        max_length=MAX_LENGTH,
        num_layers=3,
        width=192,
        num_heads=3,
        mlp_ratio=2,
        activation="relu",
        positions="rotary-places",
        image_ids=codes,
    )
    model = Decoder(config, torch.Generator().manual_seed(seed))
    optim = OptimConfig(
        name="muon",
        lr=0.003,
        warmup_steps=min(20, steps - 1),
        total_steps=steps,
        final_lr_share=0.02,
        ema_decay=0.99,
    )
    module = CM3Module(model, optim, codes)
    best = fit(
        module,
        BatchLoader(batch, SampleOrder(np.array(keys), seed, BATCH)),
        ValidationLoader(builder(False, None), np.array(validation), BATCH, pad_id=words.pad_id),
        run_dir=folder,
        max_steps=steps,
        val_every=max(1, steps // 4),
        checkpoint_every=max(1, steps // 4),
        accelerator="cpu",
        monitor="val/bits_per_code",
        description="decoder",
    )
    load_weights(module, best)
    model.load_state_dict(module.export_state())
    save_decoder(model, folder / "model", {"vocabulary_sha256": words.sha256})
    return model.eval()
