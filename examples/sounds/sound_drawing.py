"""Captions to sounds and sounds to captions, with documents that were retrieved, or without."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from cm3_decoding import SamplingConfig, generate
from cm3_model import Decoder
from cm3_retrieval import MemoryBank, inference_context
from cm3_texttok import TextTokenizer
from cm3_train import TokenShards
from sound_codes import SoundCodes
from sound_documents import Pair, SoundDocuments
from sound_memory import STRATEGY, SoundEncoder


@dataclass(frozen=True, kw_only=True)
class Parts:
    """All that drawing needs."""

    text: TextTokenizer
    codes: SoundCodes
    documents: SoundDocuments
    encoder: SoundEncoder
    bank: MemoryBank
    shards: TokenShards
    """Ids and codes of what the bank holds."""
    model: Decoder

    def pairs(self, keys: Sequence[int]) -> list[Pair]:
        """Return the text ids and codes of documents."""
        return [(self.shards.text_ids(key), self.shards.codes(key)) for key in keys]


def retrieved(
    parts: Parts, *, captions: Sequence[str] = (), sounds: np.ndarray | None = None
) -> list[list[int]]:
    """Return the key of a document for each caption, or for each sound (N, S)."""
    if sounds is None:
        kind, vectors = "text", parts.encoder.encode_texts(captions)
    else:
        kind, vectors = "image", parts.encoder.encode_images(sounds)
    return [inference_context(parts.bank, {kind: vector}, STRATEGY) for vector in vectors]


def draw(parts: Parts, captions: Sequence[str], before: Sequence[Sequence[int]]) -> np.ndarray:
    """Return sounds (N, S) of captions, each after the documents of some keys, the best last."""
    documents, pairs = parts.documents, [parts.pairs(keys) for keys in before]
    texts = parts.text.encode_batch(list(captions))
    ids = generate(
        parts.model,
        [documents.sound_prompt(text, some) for text, some in zip(texts, pairs, strict=True)],
        constraint=documents.sound,
        config=SamplingConfig(top_p=0.3),
        seeds=range(len(texts)),
    )
    return parts.codes.decode(torch.stack(ids) - documents.block.offset).numpy()


def describe(parts: Parts, sounds: np.ndarray, before: Sequence[Sequence[int]]) -> list[str]:
    """Return captions of sounds (N, S): what the model writes behind `<infill>`."""
    rows = parts.codes.encode(torch.from_numpy(sounds)).numpy()
    ids = generate(
        parts.model,
        [
            parts.documents.caption_prompt(codes, parts.pairs(keys))
            for codes, keys in zip(rows, before, strict=True)
        ],
        constraint=parts.documents.caption,
        config=SamplingConfig(sampler="greedy"),
        seeds=range(len(rows)),
    )
    return [parts.text.decode(row.tolist()) for row in ids]
