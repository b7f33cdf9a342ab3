"""Drawing: captions to pictures, several candidates each, judged by CLIP (paper 3.1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from cm3_decoding import SamplingConfig, generate
from cm3leon.drawing.prompts import image_prompts, retrieve_for_caption
from cm3leon.parts import Parts

Progress = Callable[[int, int], None]
"""Called with (steps done, steps in all)."""


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
    """Draw candidates for captions.

    Args:
        parts: The run's parts.
        captions: N prompts.
        contexts: Keys of the documents before each, the best last; None retrieves them.
        retrieved: How many to retrieve; None takes as many as the run is used to.
        samplers: Candidates take these in turn; None takes the run's own.
        seeds: (N, C) one for each candidate; None is one candidate of seed 0 for each prompt.
        progress: Called with (steps done, steps in all).
        batch_size: Pictures drawn at once; changes them as little as `cm3_decoding.generate` says.
    """
    if contexts is None:
        contexts = [retrieve_for_caption(parts, caption, retrieved) for caption in captions]
    samplers = parts.habits.samplers if samplers is None else samplers
    seeds = np.zeros((len(captions), 1), np.int64) if seeds is None else np.asarray(seeds)
    prompts = image_prompts(parts, captions, contexts)
    count, candidates = seeds.shape
    if not candidates:
        raise ValueError("candidates: wanted at least 1, got 0")

    # one batch has one sampler; rows (prompt, candidate) lie side by side, so that a prompt's
    # candidates share its reading
    batches: list[tuple[SamplingConfig, list[tuple[int, int]]]] = []
    for first, sampler in enumerate(samplers[:candidates]):
        members = range(first, candidates, len(samplers))
        places = [(row, candidate) for row in range(count) for candidate in members]
        batches += [
            (sampler, places[at : at + batch_size]) for at in range(0, len(places), batch_size)
        ]
    tokenizers = parts.tokenizers
    codes = np.empty((count, candidates, tokenizers.num_codes_per_image), np.int64)
    for done, (sampler, places) in enumerate(batches):

        def report(step: int, steps: int, done: int = done) -> None:
            if progress is not None:
                progress(done * steps + step, len(batches) * steps)

        rows, members = zip(*places, strict=True)
        unconditional, image_conditional = prompts.other_streams(sampler, rows)
        ids = generate(
            parts.model,
            [prompts.conditional[row] for row in rows],
            unconditional=unconditional,
            image_conditional=image_conditional,
            constraint=tokenizers.picture,
            config=sampler,
            seeds=[int(seeds[place]) for place in places],
            progress=report,
            device=parts.device,
        )
        codes[rows, members] = tokenizers.vocabulary.ids_to_codes(torch.stack(ids).numpy())
    pixels = tokenizers.decode(codes.reshape(count * candidates, -1))
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
