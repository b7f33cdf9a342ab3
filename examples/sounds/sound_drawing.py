"""Captions to sounds and sounds to captions, with documents that were retrieved, or without."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from cm3_decoding import SamplingConfig, generate
from cm3_model import Decoder
from cm3_retrieval import MemoryBank, RetrievalConfig, inference_context
from cm3_texttok import TextTokenizer
from cm3_train import TokenShards
from sound_codes import SoundCodes
from sound_documents import Pair, SoundDocuments
from sound_memory import SoundEncoder


@dataclass(frozen=True, kw_only=True)
class Parts:
    """All that drawing needs."""

    text: TextTokenizer
    codes: SoundCodes
    documents: SoundDocuments
    encoder: SoundEncoder
    bank: MemoryBank
    strategy: RetrievalConfig
    shards: TokenShards
    """Ids and codes of what the bank holds."""
    model: Decoder

    def pair(self, key: int) -> Pair:
        """Return a document's text ids and codes."""
        return self.shards.text_ids(key), self.shards.codes(key)


def contexts(
    parts: Parts, count: int, *, captions: Sequence[str] = (), sounds: np.ndarray | None = None
) -> list[list[int]]:
    """Return the keys of `count` documents for each caption, or for each sound (N, S)."""
    if sounds is None:
        kind, vectors = "text", parts.encoder.encode_texts(captions)
    else:
        kind, vectors = "image", parts.encoder.encode_images(sounds)
    return [
        inference_context(parts.bank, {kind: vector}, parts.strategy, count)[::-1]
        for vector in vectors
    ]


def draw(
    parts: Parts,
    captions: Sequence[str],
    found: Sequence[Sequence[int]],
    *,
    guidance: float,
    seed: int = 0,
) -> np.ndarray:
    """Return sounds (N, S) of captions.

    Args:
        parts: Tokenizers, documents and model.
        captions: N prompts.
        found: Keys of the documents before each, the best last.
        guidance: Scale of classifier-free guidance.
        seed: Of the first; the others have the next ones.
    """
    documents, before = parts.documents, [[parts.pair(key) for key in keys] for keys in found]
    texts = parts.text.encode_batch(list(captions))
    ids = generate(
        parts.model,
        [documents.sound_prompt(text, pairs) for text, pairs in zip(texts, before, strict=True)],
        unconditional=[documents.unconditional_prompt(pairs) for pairs in before],
        constraint=documents.sound,
        config=SamplingConfig(guidance_scale=guidance, top_p=0.6),
        seeds=range(seed, seed + len(captions)),
    )
    return parts.codes.decode(torch.stack(ids) - documents.block.offset).numpy()


def describe(parts: Parts, sounds: np.ndarray, found: Sequence[Sequence[int]]) -> list[str]:
    """Return captions of sounds (N, S): what the model writes behind `<infill>`."""
    prompts = [
        parts.documents.caption_prompt(codes, [parts.pair(key) for key in keys])
        for codes, keys in zip(
            parts.codes.encode(torch.from_numpy(sounds)).numpy(), found, strict=True
        )
    ]
    ids = generate(
        parts.model,
        prompts,
        constraint=parts.documents.caption,
        config=SamplingConfig(sampler="greedy"),
        seeds=range(len(prompts)),
    )
    return [parts.text.decode(row.tolist()) for row in ids]
