"""Captions of a picture: the masked caption is read behind `<infill>` (paper 2.2)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL.Image import Image

from cm3_decoding import SamplingConfig, candidate_pool
from cm3_imagetok import square
from cm3leon.drawing.draw import Progress
from cm3leon.drawing.prompts import fitting, pairs_of, retrieve_for_picture, text_to_end
from cm3leon.parts import Parts, Tokenizers

CAPTION_LENGTH = 48
"""Most tokens of a caption."""


@dataclass(frozen=True)
class Descriptions:
    """Captions of a picture, the best first."""

    captions: list[str]
    scores: list[float]
    """Cosines of each caption's CLIP vector with the picture's; all 0 where the run has no CLIP."""
    context: list[int]
    """Keys of the documents that stood before the picture, the best last."""


def describe(
    parts: Parts,
    picture: Image,
    *,
    candidates: int = 8,
    sampling: SamplingConfig | None = None,
    retrieved: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Descriptions:
    """Describe a picture.

    Args:
        parts: The run's parts.
        picture: RGB of any size; its centre square is described.
        candidates: Captions to write.
        sampling: Temperature and top-p; None takes the run's own.
        retrieved: Documents to retrieve; None takes as many as the run is used to.
        seed: Of the first caption; the others have the next ones.
        progress: Called with (steps done, steps in all).
    """
    tokenizers = parts.tokenizers
    pixels, codes = read_picture(tokenizers, picture)
    found = retrieve_for_picture(parts, pixels, retrieved)
    context = fitting(parts, found, len(tokenizers.layout.caption_prompt(codes)), CAPTION_LENGTH)
    prompt = tokenizers.layout.caption_prompt(codes, pairs_of(parts, context))

    def clip_score(ids: Sequence[torch.Tensor]) -> torch.Tensor:
        if parts.retrieval is None:
            return torch.zeros(len(ids))
        vector = parts.encoder.encode_images([pixels])[0]
        texts = read_captions(tokenizers, ids)
        return torch.from_numpy(parts.encoder.encode_texts(texts).dot(vector))

    ids, scores = candidate_pool(
        parts.model,
        torch.from_numpy(prompt),
        constraint=text_to_end(tokenizers, CAPTION_LENGTH),
        configs=[unguided(parts.habits.samplers[0] if sampling is None else sampling)],
        seeds=range(seed, seed + candidates),
        scorer=clip_score,
        progress=progress,
        device=parts.device,
    )
    return Descriptions(read_captions(tokenizers, ids), scores.tolist(), context)


def read_captions(tokenizers: Tokenizers, ids: Sequence[torch.Tensor]) -> list[str]:
    """Return the captions that ids spell."""
    # "#3" marks another view of a training picture, see `data.tokens`
    return [re.sub(r" #\d+$", "", tokenizers.text.decode(row.tolist())) for row in ids]


def read_picture(tokenizers: Tokenizers, picture: Image) -> tuple[np.ndarray, np.ndarray]:
    """Return pixels (H, W, 3) of a picture at the run's size, and its codes (h * w,)."""
    pixels = np.asarray(square(picture, tokenizers.size))
    return pixels, tokenizers.encode(pixels[None])[0]


def unguided(sampling: SamplingConfig) -> SamplingConfig:
    """Return plain sampling: captions and regions have no unconditional stream for CD-K."""
    sampler = "greedy" if sampling.sampler == "greedy" else "top-p"
    return replace(sampling, sampler=sampler, guidance_scale=1.0, image_guidance_scale=None)
