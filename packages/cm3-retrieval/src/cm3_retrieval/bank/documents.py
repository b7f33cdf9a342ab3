"""Documents of text, picture or both: their vectors, and the search for them.

Takes an encoder and, to search, a bank; gives vectors, or scores and keys. Paper 2.1 (arXiv
2309.02591): the parts of a document are encoded separately, normalised and averaged; a document may
have only one part.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from cm3_retrieval.bank.memory_bank import MemoryBank
from cm3_retrieval.interface import Encoder, same_encoder

Picture = Image.Image | np.ndarray


def encode_documents(
    encoder: Encoder,
    texts: Sequence[str | None] | None = None,
    images: Sequence[Picture | None] | np.ndarray | None = None,
) -> np.ndarray:
    """Encode N documents.

    Args:
        encoder: Encodes both parts.
        texts: N texts, None where a document has none; None when no document has one.
        images: N pictures, likewise.

    Returns:
        (N, dim) float32, rows of length 1.

    Raises:
        ValueError: A document has no part, or the counts differ.
    """
    parts: dict[str, Any] = {
        name: values
        for name, values in (("texts", texts), ("images", images))
        if values is not None
    }
    counts = {name: len(values) for name, values in parts.items()}
    if not parts or len(set(counts.values())) > 1:
        raise ValueError(f"texts, images: wanted at least one of them, of one length, got {counts}")
    vectors: dict[str, np.ndarray] = {}
    for name, values in parts.items():
        places = [place for place, value in enumerate(values) if value is not None]
        given = [values[place] for place in places]
        encode = encoder.encode_texts if name == "texts" else encoder.encode_images
        vectors[name] = np.zeros(
            (len(values), encoder.dim), np.float32
        )  # zeros mark a missing part
        if given:
            vectors[name][places] = encode(given)
    return document_vectors(vectors.get("texts"), vectors.get("images"))


def search_documents(
    bank: MemoryBank,
    encoder: Encoder,
    k: int,
    *,
    texts: Sequence[str | None] | None = None,
    images: Sequence[Picture | None] | np.ndarray | None = None,
    threads: int = 1,
) -> tuple[np.ndarray, np.ndarray]:
    """Search by text, by picture, or by both as one document.

    Args:
        bank: The bank to search.
        encoder: The encoder that made the bank.
        k: 1 to `len(bank)`.
        texts: Q texts, None where a query has none; None when no query has one.
        images: Q pictures, likewise.
        threads: FAISS's threads.

    Returns:
        (Q, k) float32 scores and (Q, k) int64 keys, best first.

    Raises:
        ValueError: The encoder is not the bank's, or `encode_documents` or `MemoryBank.search`
            refuses the query.
    """
    if not same_encoder(bank.encoder_id, encoder.encoder_id):
        raise ValueError(
            f"encoder: wanted the bank's, {bank.encoder_id!r}, got {encoder.encoder_id!r}"
        )
    return bank.search(encode_documents(encoder, texts, images), k, threads=threads)


def document_vectors(texts_emb: np.ndarray | None, images_emb: np.ndarray | None) -> np.ndarray:
    """Average the parts of N documents: each part normalised, the average normalised again.

    Args:
        texts_emb: (N, dim) vectors of the text parts; None when no document has one. A row of
            zeros marks a document without text.
        images_emb: (N, dim) vectors of the image parts, likewise.

    Returns:
        (N, dim) float32, rows of length 1.

    Raises:
        ValueError: Both parts of all documents or of one are missing, or shapes differ.
    """
    parts = [np.asarray(part, np.float64) for part in (texts_emb, images_emb) if part is not None]
    if not parts:
        raise ValueError("texts_emb, images_emb: wanted at least one of them, got None twice")
    if parts[0].ndim != 2 or parts[0].shape != parts[-1].shape:
        raise ValueError(
            f"texts_emb, images_emb: wanted one shape (N, dim), got {[p.shape for p in parts]}"
        )
    total = sum(_unit_rows(part) for part in parts)
    average = _unit_rows(np.asarray(total))
    empty = np.flatnonzero(~(np.linalg.norm(average, axis=1) > 0.5))  # zero or NaN
    if len(empty):
        raise ValueError(f"document {int(empty[0])}: wanted a part that is not zero or NaN")
    return average.astype(np.float32)


def _unit_rows(array: np.ndarray) -> np.ndarray:
    largest = np.abs(array).max(axis=1, keepdims=True, initial=0)
    array = array / np.where(largest > 0, largest, 1)  # squares of 1e300 or 1e-300 leave float64
    lengths = np.linalg.norm(array, axis=1, keepdims=True)
    return array / np.where(lengths > 0, lengths, 1)
