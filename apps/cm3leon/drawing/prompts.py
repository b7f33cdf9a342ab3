"""From captions, codes and retrieved documents to prompts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from cm3_decoding import SamplingConfig, TextUntil
from cm3_retrieval import inference_context
from cm3leon.joined_tokenizers import Tokenizers
from cm3leon.parts import Parts

Pair = tuple[np.ndarray, np.ndarray]
"""Text ids and codes of one document."""


def retrieve(
    parts: Parts, kind: str, vector: np.ndarray, count: int | None, text: str = ""
) -> list[int]:
    """Return the keys of the documents that stand before a new prompt, the best last.

    What was taught comes first where the prompt names it, and competes by its vector elsewhere.

    Args:
        parts: Memory bank, strategy and habits are used.
        kind: What was encoded, "text" or "image".
        vector: (dim,) its CLIP vector.
        count: Most documents; None takes as many as the run is used to.
        text: The prompt, if there is one.
    """
    count = parts.habits.retrieve if count is None else count
    if count == 0:
        return []
    memory = parts.memory
    found = inference_context(memory.bank, {kind: vector}, memory.strategy, count)
    if memory.taught:
        words = set(words_of(text))
        score = dict(zip(found, memory.bank.vectors_of(found).dot(vector), strict=True))
        for place, taught in enumerate(memory.taught):
            named = set(words_of(taught.text)) <= words  # above any cosine, the latest first
            score[taught.key] = 2.0 + place if named else float(taught.vector.dot(vector))
        found = sorted(score, key=lambda key: -score[key])[:count]
    return found[::-1]


def scores_of(parts: Parts, keys: Sequence[int], vector: np.ndarray) -> list[float]:
    """Return the cosines of documents, the run's own or taught ones, with a CLIP vector (dim,).

    Raises:
        KeyError: There is no document of a key.
    """
    memory = parts.memory
    taught = {one.key: float(one.vector.dot(vector)) for one in memory.taught}
    own = [key for key in keys if key not in taught]
    scores = dict(zip(own, memory.bank.vectors_of(own).dot(vector).tolist(), strict=True))
    return [{**scores, **taught}[key] for key in keys]


def words_of(text: str) -> list[str]:
    """Return the words of a text, without case and punctuation."""
    return re.findall(r"\w+", text.casefold())


def retrieve_for_caption(parts: Parts, caption: str, count: int | None) -> list[int]:
    """Return the keys of the documents that stand before a caption; see `retrieve`."""
    count = parts.habits.retrieve if count is None else count
    if count == 0:
        return []  # nothing to encode the caption for
    return retrieve(parts, "text", parts.encoder.encode_texts([caption])[0], count, caption)


def fitting(parts: Parts, keys: Sequence[int], prompt_length: int, new_ids: int) -> list[int]:
    """Return the last of `keys` whose documents fit before a prompt and its answer.

    Training leaves out documents that do not fit, too.

    Args:
        parts: Documents and context length are used.
        keys: Documents, the best last.
        prompt_length: Ids of the prompt without documents.
        new_ids: Ids of the answer with its `<eos>`.
    """
    if not keys:
        return []
    documents = parts.memory.documents
    room = parts.model.config.max_length - prompt_length - new_ids
    kept: list[int] = []
    for key in reversed(keys):
        room -= len(documents.text_ids(key)) + len(documents.codes(key)) + 2  # two <break>
        if room < 0:
            break
        kept.insert(0, key)
    return kept


def retrieve_for_picture(parts: Parts, pixels: np.ndarray, count: int | None) -> list[int]:
    """Return the keys of the documents that stand before pixels (H, W, 3); see `retrieve`."""
    count = parts.habits.retrieve if count is None else count
    if count == 0:
        return []
    return retrieve(parts, "image", parts.encoder.encode_images([pixels])[0], count)


def pairs_of(parts: Parts, keys: Sequence[int]) -> list[Pair]:
    """Return text ids and codes of documents."""
    if not keys:
        return []
    documents = parts.memory.documents
    return [(documents.text_ids(key), documents.codes(key)) for key in keys]


def text_to_end(tokenizers: Tokenizers, most: int) -> TextUntil:
    """Return the constraint of a caption or an answer: up to `most` tokens of text, to `<eos>`."""
    words = tokenizers.vocabulary
    structural = {words.pad_id, words.break_id, words.infill_id, *words.mask_ids}
    return TextUntil(
        start=0,
        stop=words.text_size,
        stop_ids=(words.eos_id,),
        max_new_tokens=most,
        forbidden=tuple(sorted(structural)),
    )


@dataclass(frozen=True)
class ImagePrompts:
    """Prompts that ask for N pictures, for each of the streams that guidance may want."""

    conditional: list[torch.Tensor]
    """Documents and caption."""
    without_caption: list[torch.Tensor]
    """Documents alone."""
    bare: torch.Tensor
    """Neither, the same for all."""
    kept: list[list[int]]
    """Keys of the documents that fitted, the best last."""

    def other_streams(
        self, config: SamplingConfig, rows: Sequence[int]
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Return the prompts of `rows` for the streams "unconditional" and "image_conditional".

        The paper's guidance keeps the documents in both streams (3.1), so that a picture is drawn
        more for its caption and less like its documents. With `image_guidance_scale` the documents
        are the pictures of that scale, apart from the caption's.
        """
        with_documents = [self.without_caption[row] for row in rows]
        if config.image_guidance_scale is None:
            return with_documents, with_documents
        return [self.bare] * len(rows), with_documents


def image_prompts(
    parts: Parts, captions: Sequence[str], contexts: Sequence[Sequence[int]]
) -> ImagePrompts:
    """Return prompts that ask for pictures.

    Args:
        parts: Tokenizers and memory are used.
        captions: N captions.
        contexts: Keys of the documents before each, the best last.
    """
    layout, answer = parts.tokenizers.layout, parts.tokenizers.num_codes_per_image + 1  # <eos>
    texts = parts.tokenizers.text.encode_batch(list(captions))
    kept = [
        fitting(parts, keys, len(layout.image_prompt(text)), answer)
        for text, keys in zip(texts, contexts, strict=True)
    ]
    pairs = [pairs_of(parts, keys) for keys in kept]
    return ImagePrompts(
        conditional=[
            torch.from_numpy(layout.image_prompt(text, context))
            for text, context in zip(texts, pairs, strict=True)
        ],
        without_caption=[torch.from_numpy(layout.unconditional_prompt(found)) for found in pairs],
        bare=torch.from_numpy(layout.unconditional_prompt([])),
        kept=kept,
    )
