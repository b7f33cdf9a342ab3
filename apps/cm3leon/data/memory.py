"""The memory bank of the training split, and the neighbours of all pairs in it (paper 2.1)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cm3_retrieval import (
    MemoryBank,
    NeighbourTable,
    RetrievalConfig,
    build_neighbour_table,
    document_vectors,
)
from cm3_retrieval.interface import Encoder
from cm3_train import progress_bar
from cm3leon.data.pixels import Pictures

BATCH = 256
"""Pictures that the encoder gets at once."""


@dataclass(frozen=True, kw_only=True)
class Neighbours:
    """What the strategy finds for each pair, and the vectors of its picture."""

    training: NeighbourTable
    """For queries with dropped words, as training wants them."""
    inference: NeighbourTable
    """For whole captions."""
    image_vectors: np.ndarray
    """(N, dim) CLIP vectors of the pictures."""

    def for_caption(self, key: int, count: int) -> list[int]:
        """Return the keys of a pair's best documents by its caption, the best last."""
        return self.inference.candidates(key)["text"][:count][::-1].tolist()


def write_memory(
    encoder: Encoder,
    pictures: Pictures,
    strategy: RetrievalConfig,
    seed: int,
    folder: Path,
) -> None:
    """Encode all pairs; write bank, neighbour tables and image vectors.

    Args:
        encoder: Of pictures and captions.
        pictures: All pairs.
        strategy: Which documents are taken; none of a pair's own group.
        seed: Of the words that training drops from a query.
        folder: Takes `bank`, `neighbours-training`, `neighbours-inference` and
            `image_vectors.npy`.
    """
    pairs, train = pictures.pairs, pictures.pairs.rows("train")
    images = encode_pictures(encoder, pictures)
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
        with progress_bar(f"neighbours, {name}", "picture") as progress:
            table = build_neighbour_table(
                bank,
                encoder,
                pairs.keys,
                pairs.captions,
                images,
                rules,
                seed,
                groups=pairs.group_numbers.tolist(),
                progress=progress,
            )
        table.save(folder / f"neighbours-{name}")
    np.save(folder / "image_vectors.npy", images)


def open_neighbours(folder: Path) -> Neighbours:
    """Open the tables and vectors that `write_memory` wrote."""
    return Neighbours(
        training=NeighbourTable.load(folder / "neighbours-training"),
        inference=NeighbourTable.load(folder / "neighbours-inference"),
        image_vectors=np.load(folder / "image_vectors.npy"),
    )


def encode_pictures(encoder: Encoder, pictures: Pictures) -> np.ndarray:
    """Encode all pictures as vectors (N, dim)."""
    parts, count = [], len(pictures.pairs)
    with progress_bar("encoding documents", "picture") as progress:
        for start in range(0, count, BATCH):
            rows = np.arange(start, min(start + BATCH, count))
            parts.append(encoder.encode_images(list(pictures.pixels(rows))))
            progress(int(rows[-1]) + 1, count)
    return np.concatenate(parts)
