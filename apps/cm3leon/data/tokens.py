"""Token shards of all pairs, and the sequences that are built from them.

Training pictures stand in the shards in several views: mirrored, turned and moved. One view is one
such change for all pictures, and its captions say so ("fox #3"), so that a plain caption asks for a
plain picture.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from cm3_train import CM3Config, SequenceBuilder, progress_bar, write_shards
from cm3leon.data.pairs import SPLITS
from cm3leon.data.pixels import Pictures
from cm3leon.joined_tokenizers import BATCH, Tokenizers
from cm3leon.parts import Documents

Retrieve = Callable[[int, int], Sequence[int]]
"""(key of a pair, epoch) -> keys of the documents that stand before it, the best last."""
Change = Callable[[np.ndarray], np.ndarray]
"""Pixels (B, H, W, 3) to pixels of the same shape."""


MAX_SHIFT = 3
"""Pixels that the further views are moved by, at most."""


def write_tokens(
    tokenizers: Tokenizers,
    pictures: Pictures,
    views: int,
    seed: int,
    folder: Path,
) -> None:
    """Write the shards: every pair as it is, those of the training split in further views.

    Args:
        tokenizers: Of captions and pictures.
        pictures: All pairs.
        views: Views of a training picture, the plain one among them.
        seed: Draws the shifts.
        folder: Takes the shards.
    """
    pairs, train = pictures.pairs, pictures.pairs.rows("train")
    changes = other_views(views - 1, MAX_SHIFT, torch.Generator().manual_seed(seed))
    codes = encode_views(
        tokenizers, pictures, [pairs.rows(*SPLITS)] + [train] * (views - 1), changes
    )
    captions = [
        [f"{caption} #{view}" if view else caption for caption in pairs.captions]
        for view in range(views)
    ]
    text_ids = [tokenizers.text.encode_batch(texts) for texts in captions]
    in_training = set(train.tolist())
    write_shards(
        (
            {
                "key": int(pairs.keys[row]),
                "view": view,
                "text_ids": text_ids[view][row],
                "codes": codes[view][row],
                "caption": captions[view][row],
                "source": pairs.files[row],
            }
            for row in range(len(pairs))
            for view in range(views if row in in_training else 1)
        ),
        folder,
        codes_per_image=tokenizers.num_codes_per_image,
        vocabulary_sha256=tokenizers.vocabulary.sha256,
    )


def encode_views(
    tokenizers: Tokenizers,
    pictures: Pictures,
    rows_of_view: Sequence[np.ndarray],
    changes: Sequence[Change],
) -> list[dict[int, np.ndarray]]:
    """Encode pictures as they are (view 0) and in each other view.

    Args:
        tokenizers: The image tokenizer is used.
        pictures: All pairs.
        rows_of_view: The rows that each view is wanted of, view 0 first.
        changes: How each view but the first changes pixels.

    Returns:
        For each view, row -> codes (h * w,).
    """
    done, total = 0, sum(map(len, rows_of_view))
    codes = []
    with progress_bar("encoding pictures", "picture") as progress:
        for rows, change in zip(rows_of_view, [lambda pixels: pixels, *changes], strict=True):
            found: dict[int, np.ndarray] = {}
            for start in range(0, len(rows), BATCH):
                part = rows[start : start + BATCH]
                encoded = tokenizers.encode(change(pictures.pixels(part)))
                found |= zip(part.tolist(), encoded, strict=True)
                done += len(part)
                progress(done, total)
            codes.append(found)
    return codes


def other_views(count: int, max_shift: int, generator: torch.Generator) -> list[Change]:
    """Return ways to change pictures: mirrored and turned, each of the 7 once, and a shift.

    No colour changes: a recoloured training picture could be a held-out one (a green heart).
    """
    turns = [(0, True), (2, False), (1, False), (3, True), (3, False), (1, True), (2, True)]

    def way(number: int) -> Change:
        quarters, mirrored = turns[number % len(turns)]
        dy, dx = torch.randint(0, 2 * max_shift + 1, (2,), generator=generator).tolist()

        def change(pixels: np.ndarray) -> np.ndarray:
            height, width = pixels.shape[1:3]
            edge = (max_shift, max_shift)
            padded = np.pad(pixels, ((0, 0), edge, edge, (0, 0)), constant_values=255)
            moved = padded[:, dy : dy + height, dx : dx + width]
            return np.rot90(moved[:, :, ::-1] if mirrored else moved, quarters, (1, 2))

        return change

    return [way(number) for number in range(count)]


def sequence_builder(
    tokenizers: Tokenizers,
    documents: Documents,
    retrieve: Retrieve | None,
    cm3: CM3Config | None,
    *,
    max_length: int,
    seed: int,
    plain_share: float | None = None,
    query_only: bool = False,
) -> SequenceBuilder:
    """Return what builds sequences from keys; see `cm3_train.SequenceBuilder`."""
    words = tokenizers.vocabulary
    return SequenceBuilder(
        documents,
        tokenizers.layout.training,
        retrieve,
        cm3,
        eos_id=words.eos_id,
        break_id=words.break_id,
        infill_id=words.infill_id,
        mask_ids=words.mask_ids,
        max_length=max_length,
        seed=seed,
        grid=tokenizers.grid,
        plain_share=plain_share,
        query_only=query_only,
    )
