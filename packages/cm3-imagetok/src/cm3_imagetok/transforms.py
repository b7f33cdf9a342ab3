"""Picture files to tensors and back.

Paths, bytes or PIL pictures become square RGB pictures of one size, uint8 arrays, and tensors in
[-1, 1]. Sizes are checked in the header, before anything is decoded; EXIF rotation is applied;
transparent pictures are put on white.
"""

from __future__ import annotations

import io
import stat
import warnings
from collections.abc import Iterable
from os import PathLike
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

MAX_BYTES = 64 * 2**20
"""Size of the largest file that is read."""
MAX_PIXELS = 64 * 10**6
"""Pixels of the largest picture that is decoded."""
MAX_SCANS = 500
"""Most passes of a progressive JPEG; each takes as long as the whole picture."""
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
"""Decoders open to untrusted files; not EPS, for example, which starts another program."""


class ImageError(ValueError):
    """A picture that cannot be used; the message names file and cause."""


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
    """Read pictures as `load_image` does.

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


def load_image(source: str | PathLike[str] | bytes) -> Image.Image:
    """Read a picture as RGB, upright, on white; the first frame of an animation.

    Args:
        source: A path, or the bytes of a file. The content decides the format, not the name.

    Returns:
        A picture in mode RGB.

    Raises:
        ImageError: The file is missing, empty, broken, too large, or in none of `FORMATS`.
    """
    name = "picture" if isinstance(source, bytes) else str(source)
    try:
        content = source if isinstance(source, bytes) else _read(Path(source))
        if not 0 < len(content) <= MAX_BYTES:
            more = "more" if len(content) > MAX_BYTES else "0"
            raise ImageError(f"{name}: wanted 1 to {MAX_BYTES} bytes, got {more}")
        # in a JPEG's data 0xff is always followed by 0, so these bytes start a scan
        if content.startswith(b"\xff\xd8") and content.count(b"\xff\xda") > MAX_SCANS:
            raise ImageError(f"{name}: wanted at most {MAX_SCANS} scans in a JPEG, got more")
        with warnings.catch_warnings():
            # Pillow only warns of decompression bombs, which our own cap refuses, and of odd tags
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(content), formats=FORMATS) as picture:
                if picture.width * picture.height > MAX_PIXELS:
                    raise ImageError(
                        f"{name}: wanted at most {MAX_PIXELS} pixels, "
                        f"got {picture.width} x {picture.height}"
                    )
                picture.load()
                return to_rgb(picture)
    except ImageError:
        raise
    except FileNotFoundError:
        raise ImageError(f"{name}: no such file") from None
    except UnidentifiedImageError:
        raise ImageError(f"{name}: no picture in a format of {', '.join(FORMATS)}") from None
    except Exception as error:  # Pillow's decoders raise many kinds on broken files
        raise ImageError(f"{name}: cannot be decoded ({type(error).__name__}: {error})") from error


def _read(path: Path) -> bytes:
    """Read a regular file, at most one byte over the cap; refuse devices and pipes."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise ImageError(f"{path}: wanted a regular file")
    with path.open("rb") as file:
        return file.read(MAX_BYTES + 1)


def to_rgb(picture: Image.Image) -> Image.Image:
    """Return the picture upright, as RGB on white; scale 16-bit and floating-point grey to 8 bits.

    Floating-point grey counts as [0, 1], or as [0, 255] if it exceeds 1.
    """
    picture = _upright(picture)
    if picture.mode.startswith("I") or picture.mode == "F":
        picture = _eight_bits(picture)
    if picture.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
        picture = Image.alpha_composite(white, picture)
    return picture.convert("RGB")


def _upright(picture: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(picture)
    except Exception:  # broken EXIF data is no reason to lose a picture that decodes
        return picture


def _eight_bits(picture: Image.Image) -> Image.Image:
    values = np.nan_to_num(np.asarray(picture).astype(np.float64))
    if picture.mode == "F":
        peak = 1.0 if values.max() <= 1.0 else 255.0
    else:
        peak = 65535.0
        hidden = picture.info.get("transparency")  # the one grey value that is transparent
        if isinstance(hidden, int):
            values[values == hidden] = peak
    return Image.fromarray(np.clip((values / peak * 255.0).round(), 0, 255).astype(np.uint8))


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
