"""Redrawing a rectangle of a picture: its codes are masked and read behind `<infill>`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL.Image import Image

from cm3_decoding import CodeBlock, Forced, SamplingConfig, candidate_pool
from cm3leon.drawing.describe import read_picture, unguided
from cm3leon.drawing.draw import Progress
from cm3leon.drawing.prompts import fitting, pairs_of, retrieve_for_caption
from cm3leon.parts import Parts, Tokenizers


@dataclass(frozen=True)
class Redrawings:
    """Candidates of a redrawn picture, the best first."""

    pixels: np.ndarray
    """(C, H, W, 3) uint8; what lies outside of the masked codes is the picture's own."""
    scores: list[float]
    """Cosines of each candidate's CLIP vector with the caption's; all 0 where there is no CLIP."""
    original: np.ndarray
    """(H, W, 3) uint8, the picture at the run's size."""
    masked: np.ndarray
    """(H, W) bool, the pixels that were redrawn."""
    context: list[int]
    """Keys of the documents that stood before the prompt, the best last."""


def redraw(
    parts: Parts,
    picture: Image,
    rectangle: tuple[int, int, int, int],
    caption: str,
    *,
    candidates: int = 8,
    sampling: SamplingConfig | None = None,
    retrieved: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Redrawings:
    """Redraw a rectangle of a picture; the rest stays.

    Args:
        parts: The run's parts.
        picture: RGB of any size; its centre square is used.
        rectangle: (x0, y0, x1, y1) in pixels of `picture`.
        caption: What the whole picture shall show.
        candidates: How many to draw.
        sampling: Temperature and top-p; None takes the run's own.
        retrieved: Documents to retrieve; None takes as many as the run is used to.
        seed: Of the first candidate; the others have the next ones.
        progress: Called with (steps done, steps in all).

    Raises:
        ValueError: The rectangle is empty or lies outside of the picture, or the run's image
            tokenizer gives no pictures.
    """
    tokenizers = parts.tokenizers
    tokenizers.check_draws()
    layout, vocabulary = tokenizers.layout, tokenizers.vocabulary
    masked = masked_codes(tokenizers, rectangle, picture.size)
    pixels, codes = read_picture(tokenizers, picture)
    text_ids = tokenizers.text.encode(caption)
    segments = redrawn_segments(tokenizers, masked)
    new_ids = int(masked.sum()) + len(layout.infill_continuations(masked))
    found = retrieve_for_caption(parts, caption, retrieved)
    bare = len(layout.infill_prompt(text_ids, codes, masked))
    context = fitting(parts, found, bare, new_ids)
    prompt = layout.infill_prompt(text_ids, codes, masked, pairs_of(parts, context))
    side = tokenizers.image.downsampling
    inside = masked.repeat(side, 0).repeat(side, 1)

    def filled(ids: Sequence[torch.Tensor]) -> np.ndarray:
        drawn = np.stack([row.numpy() for row in ids])
        whole = np.repeat(codes[None], len(drawn), 0)
        whole[:, masked.ravel()] = vocabulary.ids_to_codes(drawn[:, vocabulary.is_image(drawn[0])])
        return np.where(inside[..., None], tokenizers.decode(whole), pixels)

    def clip_score(ids: Sequence[torch.Tensor]) -> torch.Tensor:
        if parts.retrieval is None:
            return torch.zeros(len(ids))
        target = parts.encoder.encode_texts([caption])[0]
        return torch.from_numpy(parts.encoder.encode_images(list(filled(ids))).dot(target))

    ids, scores = candidate_pool(
        parts.model,
        torch.from_numpy(prompt),
        constraint=segments,
        configs=[unguided(parts.habits.samplers[0] if sampling is None else sampling)],
        seeds=range(seed, seed + candidates),
        scorer=clip_score,
        progress=progress,
        device=parts.device,
    )
    return Redrawings(filled(ids), scores.tolist(), pixels, inside, context)


def redrawn_segments(tokenizers: Tokenizers, masked: np.ndarray) -> list[CodeBlock | Forced]:
    """Return the constraint of the ids behind `<infill>`: the cut codes, their masks between."""
    block = tokenizers.vocabulary.image
    segments: list[CodeBlock | Forced] = []
    for mask_id, length in tokenizers.layout.infill_continuations(masked):
        if mask_id is not None:
            segments.append(Forced(ids=(mask_id,)))
        segments.append(CodeBlock(start=block.offset, stop=block.stop, length=length))
    return segments


def masked_codes(
    tokenizers: Tokenizers, rectangle: tuple[int, int, int, int], size: tuple[int, int]
) -> np.ndarray:
    """Return (h, w) bool: the codes that a rectangle of a picture touches.

    Args:
        tokenizers: The grid of codes is used.
        rectangle: (x0, y0, x1, y1) in pixels of the picture.
        size: (width, height) of the picture.

    Raises:
        ValueError: No rectangle inside the picture.
    """
    check_rectangle(rectangle, size)
    (width, height), (x0, y0, x1, y1) = size, rectangle
    # the picture is scaled to its shorter side and cropped at the centre, as `square` does
    shorter = min(size)
    left, top = (width - shorter) / 2, (height - shorter) / 2
    masked = np.zeros(tokenizers.grid, dtype=bool)
    rows, columns = (n / shorter for n in tokenizers.grid)
    low = max(0, int((y0 - top) * rows)), max(0, int((x0 - left) * columns))
    high = int(np.ceil((y1 - top) * rows)), int(np.ceil((x1 - left) * columns))
    masked[low[0] : max(0, high[0]), low[1] : max(0, high[1])] = True
    if not masked.any():
        raise ValueError("mask: wanted a part of the centre square, got one that is cropped away")
    return masked


def check_rectangle(rectangle: tuple[int, int, int, int], size: tuple[int, int]) -> None:
    """Refuse a rectangle that is not inside a picture of `size` (width, height).

    Raises:
        ValueError: It is not.
    """
    (width, height), (x0, y0, x1, y1) = size, rectangle
    if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
        raise ValueError(
            f"mask: wanted x0 < x1 <= {width} and y0 < y1 <= {height}, got {rectangle}"
        )
