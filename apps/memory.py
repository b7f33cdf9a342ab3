"""The memory bank of the training split, and the neighbours of all pairs in it (paper 2.1)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from pairs import Pairs
from progress import bar

from cm3_retrieval import MemoryBank, RetrievalConfig, build_neighbour_table, document_vectors
from cm3_retrieval.interface import Encoder


def write_memory(
    encoder: Encoder,
    pairs: Pairs,
    pixels_of: Callable[[np.ndarray], np.ndarray],
    strategy: RetrievalConfig,
    groups: np.ndarray | None,
    seed: int,
    folder: Path,
) -> None:
    """Encode all pairs; save bank, neighbour tables and image vectors in ``folder``.

    Args:
        encoder: Of pictures and captions.
        pairs: All pairs.
        pixels_of: Rows of ``pairs`` to pixels (B, H, W, 3) uint8.
        strategy: Which documents are taken.
        groups: (N,) numbers; a document of a pair's own group is not taken. None allows it.
        seed: Of the words that training drops from a query.
        folder: Takes ``bank``, ``neighbours-training``, ``neighbours-inference`` and
            ``image_vectors.npy``.
    """
    train = pairs.rows("train")
    with bar("encoding documents") as progress:
        images = encode_pictures(encoder, pixels_of, len(pairs), progress)
    documents = document_vectors(encoder.encode_texts(pairs.captions), images)
    bank = MemoryBank.build(
        pairs.keys[train],
        documents[train],
        {
            "caption": [pairs.captions[i] for i in train],
            "file_name": [pairs.files[i] for i in train],
        },
        encoder.encoder_id,
    )
    bank.save(folder / "bank")
    # Training drops words of the query (paper 2.1); a prompt at inference keeps them.
    whole = replace(strategy, query_dropout=0.0)
    for name, rules in (("training", strategy), ("inference", whole)):
        with bar(f"neighbours, {name}") as progress:
            table = build_neighbour_table(
                bank,
                encoder,
                pairs.keys,
                pairs.captions,
                images,
                rules,
                seed,
                groups=None if groups is None else groups.tolist(),
                progress=progress,
            )
        table.save(folder / f"neighbours-{name}")
    np.save(folder / "image_vectors.npy", images)


def encode_pictures(
    encoder: Encoder,
    pixels_of: Callable[[np.ndarray], np.ndarray],
    count: int,
    progress: Callable[[int, int], None],
    batch_size: int = 256,
) -> np.ndarray:
    """Image vectors (count, dim) of rows 0 .. count - 1."""
    parts = []
    for start in range(0, count, batch_size):
        rows = np.arange(start, min(start + batch_size, count))
        parts.append(encoder.encode_images(list(pixels_of(rows))))
        progress(int(rows[-1]) + 1, count)
    return np.concatenate(parts)
