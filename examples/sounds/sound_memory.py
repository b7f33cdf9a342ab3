"""What retrieval needs for sounds: an encoder, and the memory bank and neighbours that it gives.

A vector has a half for words and a half for sound. A text fills the first, a sound the second, a
document both. So captions find documents with the same words, rare words first, and sounds find
documents that sound alike, however loud they are from moment to moment.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from cm3_retrieval import (
    MemoryBank,
    NeighbourTable,
    RetrievalConfig,
    build_neighbour_table,
    document_vectors,
)
from sound_codes import spectra_of

WORDS = 64
"""Numbers of a word's direction."""
STRATEGY = RetrievalConfig(duplicate_threshold=0.98, max_likeness=1.0, num_context=1)
"""The same note in another way is no duplicate: it is the document that helps most."""


class SoundEncoder:
    """A `cm3_retrieval.interface.Encoder`: what that calls images are sounds, arrays (S,)."""

    def __init__(self, captions: Sequence[str], sounds: np.ndarray) -> None:
        """Count words in captions, and take the mean spectrum of sounds (N, S)."""
        self.count = len(captions)
        self.seen = Counter(word for caption in captions for word in set(words_of(caption)))
        self.mean = spectrum_of(sounds).mean(0)
        self.dim = WORDS + len(self.mean)
        known = repr(sorted(self.seen.items())).encode() + self.mean.tobytes()
        self.encoder_id = f"sounds-{hashlib.sha256(known).hexdigest()[:16]}"

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Encode N texts as (N, dim): each word is a direction, the longer the rarer it is."""
        rows = np.zeros((len(texts), self.dim), np.float32)
        for row, text in zip(rows, texts, strict=True):
            for word in words_of(text):
                rare = np.log((self.count + 1) / (self.seen[word] + 1)) + 0.01
                draw = np.random.default_rng(zlib.crc32(word.encode()))
                row[:WORDS] += rare * draw.standard_normal(WORDS)
            row[0] += 1e-3  # a text without words has a vector, too
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def encode_images(self, images: Sequence[Any] | np.ndarray) -> np.ndarray:
        """Encode N sounds (S,) as (N, dim): their spectrum, less the mean one."""
        rows = np.zeros((len(images), self.dim), np.float32)
        if len(images):
            rows[:, WORDS:] = spectrum_of(np.stack(list(images))) - self.mean
        return rows / np.linalg.norm(rows, axis=1, keepdims=True).clip(1e-6)


def words_of(text: str) -> list[str]:
    """Return the words of a text."""
    return re.findall(r"\w+", text.casefold())


def spectrum_of(sounds: np.ndarray) -> np.ndarray:
    """Return the mean spectra (N, lines) of sounds (N, S)."""
    return spectra_of(torch.from_numpy(np.asarray(sounds, np.float32))).mean(1).numpy()


def remember(
    encoder: SoundEncoder, keys: Sequence[int], captions: Sequence[str], sounds: np.ndarray
) -> MemoryBank:
    """Return a memory bank of documents: captions and sounds (N, S) under their keys."""
    vectors = document_vectors(encoder.encode_texts(captions), encoder.encode_images(sounds))
    return MemoryBank.build(np.array(keys), vectors, {"caption": captions}, encoder.encoder_id)


def neighbours(
    bank: MemoryBank,
    encoder: SoundEncoder,
    keys: Sequence[int],
    captions: Sequence[str],
    sounds: np.ndarray,
    seed: int,
) -> NeighbourTable:
    """Return the bank's documents nearest to each training pair, by its sound and its caption."""
    vectors = encoder.encode_images(sounds)
    return build_neighbour_table(
        bank, encoder, np.array(keys), captions, vectors, STRATEGY, seed, text_vectors=None
    )
