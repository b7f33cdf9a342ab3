"""Drawing: captions to pictures, several candidates each, judged by CLIP (paper 3.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch

from cm3_decoding import Row, SamplingConfig
from cm3leon.drawing.continuation import Continuation, Progress, picture_so_far
from cm3leon.drawing.prompts import image_prompts, retrieve_for_caption
from cm3leon.parts import Parts

TAUGHT_SCALE = 2.0
"""`image_guidance_scale` behind a taught picture, where nobody says another: its shape counts more
than by the paper's guidance, whose streams both have the documents."""


@dataclass(frozen=True)
class Drawings:
    """Candidates of N prompts, C each, and how CLIP likes them."""

    pixels: np.ndarray
    """(N, C, H, W, 3) uint8."""
    vectors: np.ndarray
    """(N, C, dim) CLIP image vectors; dim is 0 where the run has no CLIP."""
    scores: np.ndarray
    """(N, C) cosines with the caption's CLIP text vector; all 0 where the run has no CLIP."""
    contexts: list[list[int]]
    """Keys of the documents that stood before each prompt, the best last."""

    @property
    def best(self) -> tuple[np.ndarray, np.ndarray]:
        """Pixels (N, H, W, 3) and vectors (N, dim) of each prompt's best candidate."""
        place = np.arange(len(self.scores)), self.scores.argmax(1)
        return self.pixels[place], self.vectors[place]


def drawing(
    parts: Parts,
    captions: Sequence[str],
    *,
    contexts: Sequence[Sequence[int]] | None = None,
    retrieved: int | None = None,
    samplers: Sequence[SamplingConfig] | None = None,
    seeds: np.ndarray | None = None,
) -> Continuation[Drawings]:
    """Return what draws candidates for captions.

    Args:
        parts: The run's parts.
        captions: N prompts.
        contexts: Keys of the documents before each, the best last; None retrieves them.
        retrieved: How many to retrieve; None takes as many as the run is used to.
        samplers: Candidates take these in turn, behind a taught document with `TAUGHT_SCALE`; None
            takes the run's own.
        seeds: (N, C) one for each candidate; None is one candidate of seed 0 for each prompt.
    """
    if contexts is None:
        contexts = [retrieve_for_caption(parts, caption, retrieved) for caption in captions]
    samplers = parts.habits.samplers if samplers is None else samplers
    seeds = np.zeros((len(captions), 1), np.int64) if seeds is None else np.asarray(seeds)
    prompts = image_prompts(parts, captions, contexts)
    tokenizers, (count, candidates) = parts.tokenizers, seeds.shape
    if not candidates:
        raise ValueError("candidates: wanted at least 1, got 0")
    rows = []
    for row in range(count):
        turns = [after_documents(parts, prompts.kept[row], sampler) for sampler in samplers]
        for candidate in range(candidates):
            config = turns[candidate % len(turns)]
            (unconditional,), (image_conditional,) = prompts.other_streams(config, [row])
            rows.append(
                Row(
                    prompts={
                        "conditional": prompts.conditional[row],
                        "image_conditional": image_conditional,
                        "unconditional": unconditional,
                    },
                    segments=[tokenizers.picture],
                    config=config,
                    seed=int(seeds[row, candidate]),
                )
            )

    def finish(ids: Sequence[torch.Tensor]) -> Drawings:
        codes = tokenizers.vocabulary.ids_to_codes(torch.stack(list(ids)).numpy())
        pixels = tokenizers.decode(codes)
        if parts.retrieval is None:  # nobody judges
            vectors = np.empty((count, candidates, 0), np.float32)
            scores = np.zeros((count, candidates), np.float32)
        else:
            vectors = parts.encoder.encode_images(list(pixels)).reshape(count, candidates, -1)
            scores = np.einsum("ncd,nd->nc", vectors, parts.encoder.encode_texts(captions))
        return Drawings(
            pixels=pixels.reshape(count, candidates, *pixels.shape[1:]),
            vectors=vectors,
            scores=scores,
            contexts=prompts.kept,
        )

    return Continuation(
        rows=rows,
        finish=finish,
        contexts=prompts.kept,
        codes_so_far=partial(picture_so_far, parts),
    )


def after_documents(parts: Parts, keys: Sequence[int], sampler: SamplingConfig) -> SamplingConfig:
    """Return how to draw behind documents, given how to draw: see `TAUGHT_SCALE`."""
    taught = {one.key for one in parts.memory.taught} if keys else set()
    if taught.isdisjoint(keys) or sampler.image_guidance_scale is not None:
        return sampler
    return replace(sampler, image_guidance_scale=TAUGHT_SCALE)


def draw(
    parts: Parts,
    captions: Sequence[str],
    *,
    contexts: Sequence[Sequence[int]] | None = None,
    retrieved: int | None = None,
    samplers: Sequence[SamplingConfig] | None = None,
    seeds: np.ndarray | None = None,
    progress: Progress | None = None,
    batch_size: int = 32,
) -> Drawings:
    """Draw candidates for captions; arguments as of `drawing` and `Continuation.carry_out`."""
    asked = drawing(
        parts, captions, contexts=contexts, retrieved=retrieved, samplers=samplers, seeds=seeds
    )
    return asked.carry_out(parts, progress=progress, batch_size=batch_size)
