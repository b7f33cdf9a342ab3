from types import SimpleNamespace

import numpy as np
import pytest

from cm3_retrieval import (
    MemoryBank,
    NeighbourTable,
    RetrievalConfig,
    build_neighbour_table,
    document_vectors,
)

COUNT, DIM = 60, 6
KEYS = np.random.default_rng(9).permutation(1000)[:COUNT]
CAPTIONS = [f"w{row} w{row % 7} common words here w{row % 3} more" for row in range(COUNT)]
OPEN = RetrievalConfig(max_relevance=1.0, duplicate_threshold=1.0)


def word_vector(word: str) -> np.ndarray:
    return np.random.default_rng(list(word.encode())).standard_normal(DIM)


def unit(rows: list[np.ndarray]) -> np.ndarray:
    array = np.array(rows).reshape(-1, DIM)
    return (array / np.linalg.norm(array, axis=-1, keepdims=True)).astype(np.float32)


def encode_texts(texts):
    return unit([sum(map(word_vector, text.split())) for text in texts])


def encode_images(images):  # here a picture is its row number
    return unit([word_vector(f"picture {row}") for row in images])


ENCODER = SimpleNamespace(
    dim=DIM, encoder_id="bag", encode_texts=encode_texts, encode_images=encode_images
)
ROW_OF = {int(key): row for row, key in enumerate(KEYS)}


def make_bank(rows=range(COUNT), **columns) -> MemoryBank:
    rows = list(rows)
    vectors = document_vectors(encode_texts([CAPTIONS[r] for r in rows]), encode_images(rows))
    return MemoryBank.build(KEYS[rows], vectors, columns, "bag")


def make_table(bank, config=OPEN, seed=5, rows=range(COUNT), **knobs) -> NeighbourTable:
    rows = list(rows)
    return build_neighbour_table(
        bank, ENCODER, KEYS[rows], [CAPTIONS[r] for r in rows], ROW_OF.__getitem__, config, seed,
        **knobs,
    )  # fmt: skip


@pytest.fixture(scope="session")
def world() -> SimpleNamespace:
    """Sixty documents, an encoder that adds up words, and what is made of them."""
    return SimpleNamespace(
        count=COUNT,
        dim=DIM,
        keys=KEYS,
        captions=CAPTIONS,
        open=OPEN,
        encoder=ENCODER,
        row_of=ROW_OF,
        make_bank=make_bank,
        make_table=make_table,
    )


@pytest.fixture(scope="session")
def bank() -> MemoryBank:
    return make_bank()
