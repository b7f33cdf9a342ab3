"""Token shards of all pairs, training pictures in several views: mirrored, turned and moved.

One view is one such change for all pictures, and its captions say so ("fox #3"), so that a plain
caption asks for a plain picture.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from pairs import SPLITS, Pairs
from progress import bar
from torch import Tensor

from cm3_imagetok import to_tensor
from cm3_train import write_shards


def write_views(
    encode_texts: Callable[[Sequence[str]], Sequence[np.ndarray]],
    encode_images: Callable[[Tensor], Tensor],
    pairs: Pairs,
    pixels_of: Callable[[np.ndarray], np.ndarray],
    views: int,
    max_shift: int,
    folder: Path,
    *,
    codes_per_image: int,
    vocabulary_sha256: str,
    generator: torch.Generator,
) -> None:
    """Write the shards: every pair as it is, those of the training split in further views.

    Args:
        encode_texts: Captions to text ids.
        encode_images: Images (B, 3, H, W) to codes (B, h, w).
        pairs: All pairs.
        pixels_of: Rows of ``pairs`` to pixels (B, H, W, 3) uint8.
        views: Views of a training picture, the plain one among them.
        max_shift: Pixels that the others are moved by, at most.
        folder: Takes the shards.
        codes_per_image: h * w.
        vocabulary_sha256: Of the joint id space that the ids belong to.
        generator: Draws the shifts.
    """
    train = pairs.rows("train")
    with bar("encoding pictures") as progress:
        codes = encode_views(
            encode_images,
            pixels_of,
            [pairs.rows(*SPLITS)] + [train] * (views - 1),
            other_views(views - 1, max_shift, generator),
            progress,
        )
    captions = [
        [f"{caption} #{view}" if view else caption for caption in pairs.captions]
        for view in range(views)
    ]
    text_ids = [encode_texts(texts) for texts in captions]
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
        codes_per_image=codes_per_image,
        vocabulary_sha256=vocabulary_sha256,
    )


def encode_views(
    encode: Callable[[Tensor], Tensor],
    pixels_of: Callable[[np.ndarray], np.ndarray],
    rows_of_view: Sequence[np.ndarray],
    changes: Sequence[Callable[[Tensor], Tensor]],
    progress: Callable[[int, int], None],
) -> list[dict[int, np.ndarray]]:
    """Codes of pictures as they are (view 0) and of each other view.

    Args:
        encode: Images (B, 3, H, W) to codes (B, h, w).
        pixels_of: Rows to pixels (B, H, W, 3) uint8.
        rows_of_view: The rows that each view is wanted of, view 0 first.
        changes: How each view but the first changes images.
        progress: Called with (done, total).

    Returns:
        For each view, row -> codes (h * w,).
    """
    done, total = 0, sum(map(len, rows_of_view))
    codes = []
    for rows, change in zip(rows_of_view, [lambda images: images, *changes], strict=True):
        found: dict[int, np.ndarray] = {}
        for start in range(0, len(rows), 64):
            part = rows[start : start + 64]
            images = change(to_tensor(pixels_of(part)))
            found |= zip(part.tolist(), encode(images).flatten(1).numpy(), strict=True)
            done += len(part)
            progress(done, total)
        codes.append(found)
    return codes


def other_views(
    count: int, max_shift: int, generator: torch.Generator
) -> list[Callable[[Tensor], Tensor]]:
    """Ways to change pictures (B, 3, H, W): mirrored and turned, each of the 7 once, and a shift.

    No colour changes: a recoloured training picture could be a held-out one (a green heart).
    """
    turns = [(0, True), (2, False), (1, False), (3, True), (3, False), (1, True), (2, True)]

    def way(number: int) -> Callable[[Tensor], Tensor]:
        quarters, mirrored = turns[number % len(turns)]
        dy, dx = torch.randint(0, 2 * max_shift + 1, (2,), generator=generator).tolist()

        def change(images: Tensor) -> Tensor:
            height, width = images.shape[2:]
            padded = F.pad(images, (max_shift,) * 4, value=1.0)
            images = padded[:, :, dy : dy + height, dx : dx + width]
            images = images.flip(-1) if mirrored else images
            return torch.rot90(images, quarters, (2, 3)).contiguous()

        return change

    return [way(number) for number in range(count)]
