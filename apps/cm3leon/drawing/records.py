"""What a tuned run is asked for: a task, its fields, and the pictures to show beside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cm3leon.instructions.features import Extractor
from cm3leon.instructions.locations import SIDE, said_boxes
from cm3leon.parts import Parts

Box = tuple[int, int, int, int]
"""(x0, y0, x1, y1) in 0..255."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A record, and how to speak of it."""

    task: str
    fields: Mapping[str, Any]
    """Texts, and codes of pictures."""
    title: str
    shown: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Pictures (H, W, 3) that the run is given, by their names."""


def edit_of(parts: Parts, pixels: np.ndarray, instruction: str) -> Wanted:
    """Return the record of a picture (H, W, 3) that is to be changed."""
    fields = {"instruction": instruction, "source": codes_of(parts, pixels)}
    return Wanted(task="edit", fields=fields, title=instruction, shown={"source": pixels})


def writing_of(text: str) -> Wanted:
    """Return the record of a text that is to be written."""
    return Wanted(task="write", fields={"text": text}, title=text)


def boxes_of(boxes: Sequence[tuple[str, Box]], caption: str | None, grid: int) -> Wanted:
    """Return the record of things at places, which are rounded to multiples of `grid`."""
    caption = caption or ", ".join(name for name, _ in boxes)
    fields = {"caption": caption, "boxes": said_boxes(boxes, SIDE, grid=grid)}
    return Wanted(task="boxes", fields=fields, title=caption)


def structure_of(
    parts: Parts, feature: str, pixels: np.ndarray, caption: str, extract: Extractor | None
) -> Wanted:
    """Return the record of a picture along a feature of another one.

    Args:
        parts: The run's parts.
        feature: Its name, such as "canny".
        pixels: (H, W, 3) of the other one.
        caption: What to draw.
        extract: Makes the feature of it; None: it is the feature.
    """
    pixels = pixels if extract is None else extract(pixels)
    fields = {"caption": caption, "feature": codes_of(parts, pixels)}
    return Wanted(task=feature, fields=fields, title=caption, shown={feature: pixels})


def codes_of(parts: Parts, pixels: np.ndarray) -> np.ndarray:
    """Return the codes (h * w,) of pixels (H, W, 3) at the run's size."""
    return parts.tokenizers.encode(pixels[None])[0]
