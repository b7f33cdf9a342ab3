"""Pictures to square ones of one size, to uint8 arrays, to tensors in [-1, 1], and back."""

from __future__ import annotations

from collections.abc import Iterable
from os import PathLike
from typing import Literal, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from cm3_imagetok.picture_file import ImageError, load_image


class Loaded(NamedTuple):
    """The result of `load_images`."""

    pictures: list[Image.Image]
    """The pictures that could be read, in order, in mode RGB."""
    rows: list[int]
    """The number of each picture's source."""
    errors: list[ImageError]
    """One error per skipped source."""


def load_images(
    sources: Iterable[str | PathLike[str] | bytes], on_error: Literal["raise", "skip"] = "raise"
) -> Loaded:
    """Read pictures as `picture_file.load_image` does.

    Args:
        sources: Paths, or the bytes of files.
        on_error: "raise" stops at the first picture that cannot be used; "skip" collects errors.

    Raises:
        ImageError: A picture cannot be used, and `on_error` is "raise".
        ValueError: `on_error` is neither.
    """
    if on_error not in ("raise", "skip"):
        raise ValueError(f"on_error: wanted 'raise' or 'skip', got {on_error!r}")
    loaded = Loaded([], [], [])
    for row, source in enumerate(sources):
        try:
            loaded.pictures.append(load_image(source))
            loaded.rows.append(row)
        except ImageError as error:
            if on_error == "raise":
                raise
            loaded.errors.append(error)
    return loaded


def square(picture: Image.Image, size: int) -> Image.Image:
    """Resize the shorter side to `size` (Lanczos, antialiased) and crop the centre."""
    if picture.size == (size, size):
        return picture
    return ImageOps.fit(picture, (size, size), method=Image.Resampling.LANCZOS)


def to_tensor(pixels: np.ndarray | Tensor) -> Tensor:
    """Convert uint8 pixels (B, H, W, 3) to float32 (B, 3, H, W) in [-1, 1]."""
    # a copy: pixels of a PIL picture or a memory map cannot be written to
    tensor = pixels if isinstance(pixels, Tensor) else torch.from_numpy(np.array(pixels))
    if tensor.ndim != 4 or tensor.shape[-1] != 3 or tensor.dtype != torch.uint8:
        raise ValueError(
            f"pixels: wanted uint8 (B, H, W, 3), got {tensor.dtype} {tuple(tensor.shape)}"
        )
    return tensor.permute(0, 3, 1, 2).float() / 127.5 - 1.0


def to_pixels(images: Tensor) -> np.ndarray:
    """Convert images (B, 3, H, W) in [-1, 1] to uint8 pixels (B, H, W, 3)."""
    pixels = (images.detach().float().clamp(-1, 1) + 1.0) * 127.5
    return pixels.round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu().numpy()
