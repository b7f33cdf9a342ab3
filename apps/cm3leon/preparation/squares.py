"""A picture of any size as a square one, and its boxes with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PIL import Image, ImageOps

from cm3_imagetok import square
from cm3leon.data.pixels import cropped
from cm3leon.preparation.job import Fit

Box = list[float]
"""(x0, y0, x1, y1) in pixels."""


def fitted(picture: Image.Image, size: int, fit: Fit) -> Image.Image:
    """Return the picture at `size` x `size`: its centre, the whole on white, or it stretched."""
    if fit == "crop" or picture.size == (size, size):
        return square(picture, size)
    if fit == "stretch":
        return picture.resize((size, size), Image.Resampling.LANCZOS)
    return ImageOps.pad(picture, (size, size), Image.Resampling.LANCZOS, color="white")


def moved(box: Sequence[float], width: int, height: int, size: int, fit: Fit) -> Box | None:
    """Return a box of a picture (width, height) in pixels of the fitted one, cut at its edges.

    None: nothing of it is left.
    """
    if fit == "crop":
        x0, y0, x1, y1 = cropped(list(box), width, height, size)
    else:
        longer = max(width, height)
        wide, high = (longer, longer) if fit == "pad" else (width, height)
        left, top = (wide - width) / 2, (high - height) / 2
        x0, x1 = ((x + left) * size / wide for x in (box[0], box[2]))
        y0, y1 = ((y + top) * size / high for y in (box[1], box[3]))
    x0, y0, x1, y1 = (min(max(value, 0.0), float(size)) for value in (x0, y0, x1, y1))
    return [x0, y0, x1, y1] if x0 < x1 and y0 < y1 else None


def boxes_of(fields: dict[str, Any]) -> Any:
    """Return the column `boxes`, or Hugging Face's `objects.bbox` of (x, y, width, height).

    What is no list of four numbers is returned as it is, for the reader to refuse.
    """
    if fields.get("boxes") is not None or not isinstance(fields.get("objects"), dict):
        return fields.get("boxes")
    found = fields["objects"].get("bbox")
    try:
        return found and [[x, y, x + width, y + height] for x, y, width, height in found]
    except (OverflowError, TypeError, ValueError):
        return found
