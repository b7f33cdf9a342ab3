"""Captions of a picture: the masked caption is read behind `<infill>` (paper 2.2)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL.Image import Image

from cm3_decoding import Row, SamplingConfig
from cm3_imagetok import square
from cm3leon.drawing.continuation import Continuation
from cm3leon.drawing.prompts import fitting, pairs_of, retrieve_for_picture, text_to_end
from cm3leon.drawing.sampling import unguided
from cm3leon.joined_tokenizers import Tokenizers
from cm3leon.parts import Parts

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


def describing(
    parts: Parts,
    picture: Image,
    *,
    candidates: int = 8,
    sampling: SamplingConfig | None = None,
    retrieved: int | None = None,
    seed: int = 0,
) -> Continuation[Descriptions]:
    """Return what describes a picture.

    Args:
        parts: The run's parts.
        picture: RGB of any size; its centre square is described.
        candidates: Captions to write.
        sampling: Temperature and top-p; None takes the run's own.
        retrieved: Documents to retrieve; None takes as many as the run is used to.
        seed: Of the first caption; the others have the next ones.
    """
    tokenizers = parts.tokenizers
    pixels, codes = read_picture(tokenizers, picture)
    found = retrieve_for_picture(parts, pixels, retrieved)
    context = fitting(parts, found, len(tokenizers.layout.caption_prompt(codes)), CAPTION_LENGTH)
    prompt = torch.from_numpy(tokenizers.layout.caption_prompt(codes, pairs_of(parts, context)))
    config = unguided(parts.habits.samplers[0] if sampling is None else sampling)
    rows = [
        Row(
            prompts={"conditional": prompt},
            segments=[text_to_end(tokenizers, CAPTION_LENGTH)],
            config=config,
            seed=seed + candidate,
        )
        for candidate in range(candidates)
    ]

    def finish(ids: Sequence[torch.Tensor]) -> Descriptions:
        captions = read_captions(tokenizers, ids)
        scores = np.zeros(len(ids), np.float32)
        if parts.retrieval is not None:
            vector = parts.encoder.encode_images([pixels])[0]
            scores = parts.encoder.encode_texts(captions).dot(vector)
        order = best_first(scores)
        return Descriptions([captions[at] for at in order], scores[order].tolist(), context)

    return Continuation(rows=rows, finish=finish, contexts=[context])


def best_first(scores: np.ndarray) -> np.ndarray:
    """Return the order (N,) of scores (N,), the highest first; ties keep their order."""
    return np.argsort(-scores, kind="stable")


def read_captions(tokenizers: Tokenizers, ids: Sequence[torch.Tensor]) -> list[str]:
    """Return the captions that ids spell."""
    return [plain(tokenizers.text.decode(row.tolist())) for row in ids]


def plain(caption: str) -> str:
    """Return a caption without the mark of another view of a training picture, such as " #3"."""
    return re.sub(r" #\d+$", "", caption)  # see `data.tokens`


def read_picture(tokenizers: Tokenizers, picture: Image) -> tuple[np.ndarray, np.ndarray]:
    """Return pixels (H, W, 3) of a picture at the run's size, and its codes (h * w,)."""
    pixels = np.asarray(square(picture, tokenizers.size))
    return pixels, tokenizers.encode(pixels[None])[0]
