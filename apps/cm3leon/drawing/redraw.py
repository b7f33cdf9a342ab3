"""Redrawing a part of a picture: its codes are masked and read behind `<infill>`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL.Image import Image, Resampling, fromarray

from cm3_decoding import CodeBlock, Forced, Row, SamplingConfig
from cm3leon.drawing.continuation import Continuation
from cm3leon.drawing.describe import best_first, read_picture
from cm3leon.drawing.prompts import fitting, pairs_of, retrieve_for_caption
from cm3leon.drawing.sampling import unguided
from cm3leon.joined_tokenizers import Tokenizers
from cm3leon.parts import Parts


@dataclass(frozen=True)
class Redrawings:
    """Candidates of a redrawn picture, the best first."""

    pixels: np.ndarray
    """(C, H, W, 3) uint8; what lies outside of the masked codes is the picture's own."""
    scores: list[float]
    """Cosines of each candidate's CLIP vector with the caption's; all 0 where there is no CLIP."""
    seeds: tuple[int, ...]
    """Of each candidate."""
    original: np.ndarray
    """(H, W, 3) uint8, the picture at the run's size."""
    masked: np.ndarray
    """(H, W) bool, the pixels that were redrawn."""
    context: list[int]
    """Keys of the documents that stood before the prompt, the best last."""


def redrawing(
    parts: Parts,
    picture: Image,
    masked: np.ndarray,
    caption: str,
    *,
    candidates: int = 8,
    sampling: SamplingConfig | None = None,
    retrieved: int | None = None,
    seed: int = 0,
) -> Continuation[Redrawings]:
    """Return what draws a part of a picture anew; the rest stays.

    Args:
        parts: The run's parts.
        picture: RGB of any size; its centre square is used.
        masked: (h, w) bool, at least one code that is drawn anew: of `masked_codes` or
            `painted_codes`.
        caption: What the whole picture shall show.
        candidates: How many to draw.
        sampling: Temperature and top-p; None takes the run's own.
        retrieved: Documents to retrieve; None takes as many as the run is used to.
        seed: Of the first candidate; the others have the next ones.

    Raises:
        ValueError: The run's image tokenizer gives no pictures, or prompt and new codes have no
            place in the model's context.
    """
    tokenizers = parts.tokenizers
    tokenizers.check_draws()
    layout, vocabulary = tokenizers.layout, tokenizers.vocabulary
    pixels, codes = read_picture(tokenizers, picture)
    text_ids = tokenizers.text.encode(caption)
    new_ids = int(masked.sum()) + len(layout.infill_continuations(masked))
    found = retrieve_for_caption(parts, caption, retrieved)
    bare = len(layout.infill_prompt(text_ids, codes, masked))
    context = fitting(parts, found, bare, new_ids)
    prompt = layout.infill_prompt(text_ids, codes, masked, pairs_of(parts, context))
    side = tokenizers.image.downsampling
    inside = masked.repeat(side, 0).repeat(side, 1)
    config = unguided(parts.habits.samplers[0] if sampling is None else sampling)
    rows = [
        Row(
            prompts={"conditional": torch.from_numpy(prompt)},
            segments=redrawn_segments(tokenizers, masked),
            config=config,
            seed=seed + candidate,
        )
        for candidate in range(candidates)
    ]

    def filled(ids: Sequence[torch.Tensor]) -> np.ndarray:
        """Return the picture's codes (C, h * w) with drawn ones, as many as there are."""
        drawn = np.stack([row.numpy() for row in ids])
        new = vocabulary.ids_to_codes(drawn[:, vocabulary.is_image(drawn[0])])
        whole = np.repeat(codes[None], len(drawn), 0)
        whole[:, np.flatnonzero(masked)[: new.shape[1]]] = new
        return whole

    def so_far(ids: Sequence[torch.Tensor]) -> tuple[np.ndarray, int]:
        shortest = min(map(len, ids))
        whole = filled([row[:shortest] for row in ids])
        drawn = int(vocabulary.is_image(ids[0][:shortest].numpy()).sum())
        missing = np.flatnonzero(masked)[drawn:]
        return whole, int(missing[0]) // masked.shape[1] if len(missing) else len(masked)

    def finish(ids: Sequence[torch.Tensor]) -> Redrawings:
        redrawn = np.where(inside[..., None], tokenizers.decode(filled(ids)), pixels)
        scores = np.zeros(len(ids), np.float32)
        if parts.retrieval is not None:
            target = parts.encoder.encode_texts([caption])[0]
            scores = parts.encoder.encode_images(list(redrawn)).dot(target)
        order = best_first(scores)
        seeds = tuple(seed + int(place) for place in order)
        return Redrawings(redrawn[order], scores[order].tolist(), seeds, pixels, inside, context)

    return Continuation(rows=rows, finish=finish, contexts=[context], codes_so_far=so_far)


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


def painted_codes(tokenizers: Tokenizers, painted: np.ndarray) -> np.ndarray:
    """Return (h, w) bool: the codes in whose area the centre of a painted pixel lies.

    Args:
        tokenizers: The grid of codes is used.
        painted: (H, W) bool, as large as the picture.

    Raises:
        ValueError: Nothing of the centre square is painted.
    """
    (height, width), (rows, columns) = painted.shape, tokenizers.grid
    # the picture is scaled to its shorter side and cropped at the centre, as `square` does
    shorter = min(height, width)
    left, top = (width - shorter) / 2, (height - shorter) / 2
    shares = fromarray(painted.astype(np.float32)).resize(
        (columns, rows), Resampling.BOX, box=(left, top, left + shorter, top + shorter)
    )
    masked = np.asarray(shares) > 0
    if not masked.any():
        raise ValueError("mask: wanted a painted part of the centre square, got none")
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
