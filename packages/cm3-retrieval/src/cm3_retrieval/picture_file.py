"""Picture files from strangers: which files of a folder are pictures, and each as RGB.

Sizes are checked in the header, before anything is decoded; EXIF rotation is applied; transparent
pictures are put on white; no other program is started. The same file stands in each package that
reads pictures, since no package imports another; a test of the repository keeps the copies equal.
"""

from __future__ import annotations

import io
import os
import stat
import warnings
from os import PathLike
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

MAX_BYTES = 64 * 2**20
"""Size of the largest file that is read."""
MAX_PIXELS = 64 * 10**6
"""Pixels of the largest picture that is decoded."""
MAX_SIDE = 65535
"""Longest side, which is JPEG's own limit; Pillow's time grows with the square of a row's bytes."""
MAX_SCANS = 500
"""Most passes of a progressive JPEG; each takes as long as the whole picture."""
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
"""Decoders open to untrusted files; not EPS, for example, which starts another program."""
SUFFIXES = (
    ".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".jfi", ".jif", ".webp", ".gif", ".bmp",
    ".tif", ".tiff",
)  # fmt: skip
"""Endings, in small letters, of the files of a folder that count as pictures."""

_PEAKS = (1.0, 255.0, 65535.0, 2.0**31 - 1, 2.0**32 - 1)
"""Values that white may have in a picture of large integers or floating-point numbers."""
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation -> what makes the picture upright."""


class ImageError(ValueError):
    """A picture that cannot be used; the message names file and cause."""


def list_files(folder: str | PathLike[str], suffixes: tuple[str, ...] = SUFFIXES) -> list[Path]:
    """List the files of a folder and its subfolders with these endings, in order of their paths.

    Links to folders are followed, but not round in circles. Hidden files and folders do not count:
    they are other programs' own copies (`.ipynb_checkpoints`, macOS's `._0.png`).

    Raises:
        OSError: The folder or a subfolder is missing or cannot be read.
    """

    def refuse(error: OSError) -> None:
        raise error

    found: list[Path] = []
    # each folder on the way, by its real path, to those it lies in: links may lead back to them
    above = {os.fspath(folder): {os.path.realpath(folder)}}
    for place, folders, files in os.walk(folder, followlinks=True, onerror=refuse):
        around = above.pop(place)
        entered = []
        for name in folders:
            path = os.path.join(place, name)
            real = os.path.realpath(path)
            if name[0] != "." and name != "__MACOSX" and real not in around:
                entered.append(name)
                above[path] = around | {real}
        folders[:] = entered
        counted = [f for f in files if f[0] != "." and f.lower().endswith(suffixes)]
        found += [Path(place, name) for name in counted]
    return sorted(found)


def shown(path: str | PathLike[str]) -> str:
    r"""Return a path for people: bytes that are no UTF-8 and control characters as `\xe9`."""

    def escaped(c: str) -> str:
        # Python gives a byte 0xe9 of a name that is no UTF-8 as U+DCE9
        byte = "\udc80" <= c <= "\udcff"
        return f"\\x{ord(c) - 0xDC00:02x}" if byte else c.encode("unicode_escape").decode()

    return "".join(c if c.isprintable() else escaped(c) for c in os.fspath(path))


def load_image(source: str | PathLike[str] | bytes) -> Image.Image:
    """Read a picture as RGB, upright, on white; the first frame of an animation.

    Args:
        source: A path, or the bytes of a file. The content decides the format, not the name.

    Returns:
        A picture in mode RGB.

    Raises:
        ImageError: The file is missing, empty, broken, too large, or in none of `FORMATS`.
    """
    name = "picture" if isinstance(source, bytes) else shown(source)
    try:
        content = source if isinstance(source, bytes) else _read(Path(source), name)
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
                return to_rgb(picture, name)
    except ImageError:
        raise
    except FileNotFoundError:
        raise ImageError(f"{name}: no such file") from None
    except UnidentifiedImageError:
        raise ImageError(f"{name}: no picture in a format of {', '.join(FORMATS)}") from None
    except Exception as error:  # Pillow's readers of headers raise many kinds on broken files
        raise ImageError(f"{name}: cannot be decoded ({type(error).__name__}: {error})") from error


def _read(path: Path, name: str) -> bytes:
    """Read a regular file, at most one byte over the cap; refuse devices and pipes."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise ImageError(f"{name}: wanted a regular file")
    with path.open("rb") as file:
        return file.read(MAX_BYTES + 1)


def to_rgb(picture: Image.Image, name: str = "picture") -> Image.Image:
    """Return the picture upright, as RGB on white.

    Grey of 16 bits is scaled to 8. So are larger integers and floating-point numbers; white is the
    least of 1 (for floating-point numbers alone), 255, 65535, 2^31 - 1 and 2^32 - 1 that no finite
    value exceeds.

    Args:
        picture: A picture of any mode, decoded or not.
        name: What to call it in errors.

    Raises:
        ImageError: It has too many pixels, or cannot be decoded.
    """
    size = f"{picture.width} x {picture.height}"
    if not 0 < picture.width * picture.height <= MAX_PIXELS:
        raise ImageError(f"{name}: wanted 1 to {MAX_PIXELS} pixels, got {size}")
    if max(picture.size) > MAX_SIDE:
        raise ImageError(f"{name}: wanted sides of at most {MAX_SIDE} pixels, got {size}")
    try:
        stored = _stored_as(picture)  # is lost when the picture is decoded
        picture.load()
        picture = _upright(picture)
        if picture.mode.startswith("I") or picture.mode == "F":
            return _eight_bits(picture, stored).convert("RGB")
        _scale_transparency(picture, stored)
        if picture.has_transparency_data:
            picture = picture.convert("RGBA")
            white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
            picture = Image.alpha_composite(white, picture)
        return picture.convert("RGB")
    except Exception as error:  # Pillow's decoders raise many kinds on broken files
        raise ImageError(f"{name}: cannot be decoded ({type(error).__name__}: {error})") from error


def _stored_as(picture: Image.Image) -> str:
    """Return Pillow's name of the pixels' form in the file, such as "L;4"; "" if not known."""
    tiles = getattr(picture, "tile", None) or [(None, None, None, "")]
    form = tiles[0][3]
    return str(form[0] if isinstance(form, tuple) and form else form)


def _upright(picture: Image.Image) -> Image.Image:
    """Turn a picture as its EXIF data say; tags that cannot be read turn nothing."""
    try:
        # not `ImageOps.exif_transpose`, which writes all tags anew and fails at an odd one
        turn = _TURNS.get(picture.getexif().get(0x0112, 1))
    except Exception:  # broken EXIF data is no reason to lose a picture that decodes
        return picture
    if turn is None:
        return picture
    turned = picture.transpose(turn)
    turned.info = dict(picture.info)
    return turned


def _scale_transparency(picture: Image.Image, stored: str) -> None:
    """Give a PNG's transparent colour the depth of its pixels, which Pillow scales to 8 bits."""
    hidden = picture.info.get("transparency")
    if isinstance(hidden, int) and stored in ("L;2", "L;4"):
        picture.info["transparency"] = hidden * (85 if stored == "L;2" else 17)
    elif isinstance(hidden, tuple) and stored.startswith("RGB;16"):
        picture.info["transparency"] = tuple(value >> 8 for value in hidden)


def _eight_bits(picture: Image.Image, stored: str) -> Image.Image:
    values = np.asarray(picture)
    if stored == "I;32N":
        values = values.view(np.uint32)  # Pillow reads a TIFF's unsigned integers as signed ones
    values = values.astype(np.float64)
    if picture.mode.startswith("I;16"):
        peak = 65535.0
        hidden = picture.info.get("transparency")  # the one grey value that is transparent
        if isinstance(hidden, int):
            values[values == hidden] = peak
    else:
        top = values.max(initial=0.0, where=np.isfinite(values))
        peaks = _PEAKS if picture.mode == "F" else _PEAKS[1:]
        peak = next((peak for peak in peaks if top <= peak), top)
    values = np.nan_to_num(values, posinf=peak, neginf=0.0) / peak * 255.0
    return Image.fromarray(values.round().clip(0, 255).astype(np.uint8))
