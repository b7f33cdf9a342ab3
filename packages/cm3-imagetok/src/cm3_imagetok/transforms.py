"""Picture files to tensors and back: what a tokenizer is fed with.

Takes paths, bytes or PIL pictures; gives RGB pictures of one square size as uint8 arrays, and
tensors in [-1, 1]. Sizes are checked in the header, before anything is decoded; EXIF rotation is
applied; transparency is laid on white.
"""

from __future__ import annotations

import io
import warnings
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

MAX_BYTES = 64 * 2**20
"""Largest file that is read."""
MAX_PIXELS = 64 * 10**6
"""Largest picture that is decoded, in pixels."""


class ImageError(ValueError):
    """A picture that cannot be used; the message names the file and the cause."""


def load_image(source: str | PathLike[str] | bytes) -> Image.Image:
    """Read a picture as RGB, upright, on white.

    Args:
        source: A path, or the bytes of a file.

    Returns:
        A picture in mode RGB.

    Raises:
        ImageError: The file is missing, empty, broken, no picture, or too large.
    """
    name = "picture" if isinstance(source, bytes) else str(source)
    try:
        size = len(source) if isinstance(source, bytes) else Path(source).stat().st_size
        if not 0 < size <= MAX_BYTES:
            raise ImageError(f"{name}: wanted 1 to {MAX_BYTES} bytes, got {size}")
        with warnings.catch_warnings():
            # Pillow only warns about decompression bombs; our own cap below refuses them.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as picture:
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
        raise ImageError(f"{name}: no picture that Pillow can read") from None
    except Exception as error:  # Pillow's decoders raise many kinds on broken files
        raise ImageError(f"{name}: cannot be decoded ({type(error).__name__}: {error})") from error


def to_rgb(picture: Image.Image) -> Image.Image:
    """Upright RGB on white; 16-bit grey is scaled to 8 bits instead of being cut off."""
    picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith("I"):
        values = np.asarray(picture).astype(np.float64) / 65535.0 * 255.0
        picture = Image.fromarray(np.clip(values.round(), 0, 255).astype(np.uint8))
    if picture.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
        picture = Image.alpha_composite(white, picture)
    return picture.convert("RGB")


def square(picture: Image.Image, size: int) -> Image.Image:
    """Resize the shorter side to ``size`` (Lanczos, antialiased) and crop the centre."""
    if picture.size == (size, size):
        return picture
    return ImageOps.fit(picture, (size, size), method=Image.Resampling.LANCZOS)


def to_tensor(pixels: np.ndarray | Tensor) -> Tensor:
    """Pixels (B, H, W, 3) uint8 to (B, 3, H, W) float32 in [-1, 1]."""
    # a copy: pixels of a PIL picture or a memory map cannot be written to
    tensor = pixels if isinstance(pixels, Tensor) else torch.from_numpy(np.array(pixels))
    if tensor.ndim != 4 or tensor.shape[-1] != 3 or tensor.dtype != torch.uint8:
        raise ValueError(
            f"pixels: wanted uint8 (B, H, W, 3), got {tensor.dtype} {tuple(tensor.shape)}"
        )
    return tensor.permute(0, 3, 1, 2).float() / 127.5 - 1.0


def to_pixels(images: Tensor) -> np.ndarray:
    """Images (B, 3, H, W) in [-1, 1] to uint8 (B, H, W, 3)."""
    pixels = (images.detach().float().clamp(-1, 1) + 1.0) * 127.5
    return pixels.round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu().numpy()
