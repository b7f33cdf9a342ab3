"""Pictures from strangers' files, under limits, and into PNG; in threads beside the event loop."""

from __future__ import annotations

import asyncio
import base64
import binascii
import io
import math
import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

import numpy as np
from PIL import Image

from cm3_imagetok.picture_file import MAX_SCANS, ImageError, to_rgb
from cm3leon.serving.limits import Limits

FORMATS = ("PNG", "JPEG", "WEBP")
KEPT = 2**20
"""Pixels that a larger picture is reduced to: many may wait, and runs draw far smaller ones."""
THREADS = 2
"""Pictures that are decoded at the same time, each of which may take some 0.2 GB for a moment."""
_PREFIX = re.compile(r"data:image/(?:png|jpeg|webp);base64,")
_ORIENTATION = 0x0112

P = ParamSpec("P")
T = TypeVar("T")


class PictureFiles:
    """Reads and writes pictures for requests."""

    def __init__(self, limits: Limits) -> None:
        """Start no thread before there is something to do."""
        self._limits = limits
        self._threads = ThreadPoolExecutor(THREADS, "pictures")

    async def picture(self, file: str | bytes, name: str = "picture") -> Image.Image:
        """Return the picture of a file, upright, in RGB, on white.

        Args:
            file: The file's bytes, or their base64.
            name: What to call it in errors.

        Raises:
            ImageError: It is no picture, or beyond a limit; says which.
        """
        return await self._run(read_picture, file, self._limits, name)

    async def masked(
        self,
        file: str | bytes,
        mask: str | bytes,
        name: str = "picture",
        *,
        transparent: bool = False,
    ) -> tuple[Image.Image, np.ndarray]:
        """Return a picture and where it is to be drawn anew, (H, W) bool.

        Args:
            file: As of `picture`.
            mask: A file of the same size; what is white and not transparent is drawn anew.
            name: As of `picture`.
            transparent: What is fully transparent is, instead.

        Raises:
            ImageError: One is no picture or beyond a limit, or they do not fit; says which.
        """
        return await self._run(read_masked, file, mask, self._limits, name, transparent)

    async def encoded(self, pictures: Iterable[np.ndarray]) -> list[str]:
        """Return the base64 of a PNG of each of the pictures, (H, W, 3) uint8."""
        return await self._run(lambda: [to_base64(pixels) for pixels in pictures])

    def close(self) -> None:
        """End the threads; what they have not begun is not done."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _run(self, work: Callable[P, T], *args: P.args, **options: P.kwargs) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, lambda: work(*args, **options))


def read_picture(file: str | bytes, limits: Limits, name: str = "picture") -> Image.Image:
    """Return the picture of a file; arguments and errors as of `PictureFiles.picture`."""
    with _opened(file, limits, name) as picture:
        return _reduced(to_rgb(picture, name))


def read_masked(
    file: str | bytes, mask: str | bytes, limits: Limits, name: str, transparent: bool
) -> tuple[Image.Image, np.ndarray]:
    """Return picture and mask; arguments and errors as of `PictureFiles.masked`."""
    with _opened(file, limits, name) as opened:
        picture = to_rgb(opened, name)
    with _opened(mask, limits, "mask") as opened:
        if opened.getexif().get(_ORIENTATION, 1) != 1:
            raise ImageError("mask: wanted a picture that is not turned by EXIF data")
        grey = np.asarray(to_rgb(opened, "mask").convert("L"))
        clear = opened.has_transparency_data
        alpha = np.asarray(opened.convert("RGBA").getchannel("A")) if clear else None
    if grey.shape != picture.size[::-1]:
        wanted, came = (f"{width} x {height}" for height, width in (picture.size[::-1], grey.shape))
        raise ImageError(f"mask: wanted the {name}'s size, {wanted}, got {came}")
    if transparent:
        anew = np.zeros(grey.shape, bool) if alpha is None else alpha == 0
    else:
        anew = (grey > 127) if alpha is None else (grey > 127) & (alpha > 127)
    if not anew.any():
        part = "transparent" if transparent else "white"
        raise ImageError(f"mask: wanted a {part} part, to be drawn anew, got none")
    reduced = _reduced(picture)
    if reduced.size != picture.size:
        shares = Image.fromarray(anew.astype(np.uint8) * 255)
        # whatever was painted, however little, stays painted
        anew = np.asarray(shares.resize(reduced.size, Image.Resampling.BOX)) > 0
    return reduced, anew


def to_base64(pixels: np.ndarray) -> str:
    """Return the base64 of a PNG of a picture, (H, W, 3) uint8."""
    file = io.BytesIO()
    # level 1: up to ten times as quick as the usual 6, and a fifth larger
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return base64.b64encode(file.getvalue()).decode("ascii")


@contextmanager
def _opened(file: str | bytes, limits: Limits, name: str) -> Iterator[Image.Image]:
    """Open a picture, of which only the header is read; its pixels are for the block."""
    content = _bytes_of(file, limits, name)
    if not 0 < len(content) <= limits.picture_bytes:
        raise ImageError(f"{name}: wanted 1 to {limits.picture_bytes} bytes, got {len(content)}")
    # in a JPEG's data 0xff is always followed by 0, so these bytes start a scan
    if content.startswith(b"\xff\xd8") and content.count(b"\xff\xda") > MAX_SCANS:
        raise ImageError(f"{name}: wanted at most {MAX_SCANS} scans in a JPEG, got more")
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as picture:
            if not 0 < picture.width * picture.height <= limits.pixels:
                size = f"{picture.width} x {picture.height}"
                raise ImageError(f"{name}: wanted 1 to {limits.pixels} pixels, got {size}")
            yield picture
    except ImageError:
        raise
    except Image.DecompressionBombError:  # Pillow's own limit is far above the usual ones
        raise ImageError(f"{name}: wanted 1 to {limits.pixels} pixels, got more") from None
    except Exception:  # Pillow's readers raise many kinds on broken files
        raise ImageError(f"{name}: no picture in a format of {', '.join(FORMATS)}") from None


def _bytes_of(file: str | bytes, limits: Limits, name: str) -> bytes:
    if isinstance(file, bytes):
        return file
    prefix = _PREFIX.match(file)
    start = prefix.end() if prefix else 0
    most = limits.picture_bytes
    if (len(file) - start) // 4 * 3 > most + 2:
        raise ImageError(f"{name}: wanted 1 to {most} bytes, got more")
    try:
        return base64.b64decode(file[start:], validate=True)
    except (binascii.Error, ValueError):
        raise ImageError(f"{name}: wanted base64 of a picture's file") from None


def _reduced(picture: Image.Image) -> Image.Image:
    pixels = picture.width * picture.height
    if pixels <= KEPT:
        return picture
    scale = math.sqrt(KEPT / pixels)
    size = max(1, int(picture.width * scale)), max(1, int(picture.height * scale))
    return picture.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
