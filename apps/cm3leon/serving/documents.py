"""Documents as users see them: what is retrieved for a prompt, with scores and pictures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cm3leon.drawing import describe
from cm3leon.drawing.prompts import retrieve, scores_of
from cm3leon.parts import Parts
from cm3leon.serving.asked import Document

EXAMPLES = 6
"""Captions of the run's own documents that a page shows as examples."""
EXAMINED = 64
"""Documents among which they are looked for."""


def documents_of(
    parts: Parts, keys: Sequence[int], vector: np.ndarray | None
) -> tuple[Document, ...]:
    """Return the documents of keys, the best last, best first.

    Args:
        parts: The session's.
        keys: Of the memory or taught.
        vector: (dim,) CLIP vector of what they were retrieved for; None: scores are 1.
    """
    if not keys:
        return ()
    memory = parts.memory
    taught = {one.key for one in memory.taught}
    scores = [1.0] * len(keys) if vector is None else scores_of(parts, keys, vector)
    codes = np.stack([memory.documents.codes(key) for key in keys])
    found = [
        Document(
            key=key,
            caption=memory.documents.caption(key),
            score=score,
            pixels=pixels,
            taught=key in taught,
        )
        for key, score, pixels in zip(keys, scores, parts.tokenizers.decode(codes), strict=True)
    ]
    return tuple(reversed(found))


def found_for(parts: Parts, prompt: str, count: int | None) -> tuple[list[int], np.ndarray | None]:
    """Return the keys that are retrieved for a prompt, the best last, and its CLIP vector."""
    if parts.retrieval is None:
        if count:
            raise ValueError("retrieve: wanted 0, as this run has no memory bank")
        return [], None
    vector = parts.encoder.encode_texts([prompt])[0]
    return retrieve(parts, "text", vector, count, prompt), vector


def examples_of(parts: Parts) -> list[str]:
    """Return captions of documents that the CLIP knows well, so that they are drawn well."""
    if parts.retrieval is None:
        return []
    memory = parts.memory
    keys = memory.bank.keys
    keys = keys[:: max(1, len(keys) // EXAMINED)].tolist()
    captions = [describe.plain(memory.documents.caption(key)) for key in keys]
    vectors = parts.encoder.encode_texts(captions)
    scores = np.einsum("nd,nd->n", vectors, memory.bank.vectors_of(keys))
    ordered = (captions[place] for place in describe.best_first(scores))
    return list(dict.fromkeys(ordered))[:EXAMPLES]
