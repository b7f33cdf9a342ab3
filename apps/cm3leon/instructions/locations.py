"""Boxes as plain text, as the paper writes them: "fox at (19, 12) -> (104, 255), ..."."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

SIDE = 256
"""Places count from 0 to 255 whatever the size of the picture (arXiv 2309.02591, figure 15)."""
_BOX = re.compile(r"(?:^|, )(.+?) at \((\d+), (\d+)\) -> \((\d+), (\d+)\)(?=, |$)")


def said_boxes(boxes: Iterable[tuple[str, Sequence[float]]], side: float, *, grid: int = 1) -> str:
    """Return boxes as text.

    Args:
        boxes: Names with (x0, y0, x1, y1), of a picture of `side`.
        side: Of the picture, in the boxes' unit.
        grid: Places are rounded to multiples of it.
    """
    said = []
    for name, box in boxes:
        x0, y0, x1, y1 = place_of(box, side, grid=grid)
        said.append(f"{name} at ({x0}, {y0}) -> ({x1}, {y1})")
    return ", ".join(said)


def place_of(box: Sequence[float], side: float, *, grid: int = 1) -> tuple[int, int, int, int]:
    """Return a box (x0, y0, x1, y1) of a picture of `side` in whole numbers of 0 to 255."""
    x0, y0, x1, y1 = (min(SIDE - 1, max(0, grid * round(at * SIDE / side / grid))) for at in box)
    return x0, y0, x1, y1


def read_boxes(text: str) -> list[tuple[str, tuple[int, int, int, int]]]:
    """Return the names and boxes (x0, y0, x1, y1), 0 to 255, that a text says.

    Raises:
        ValueError: It is no list of them, or a box is outside or empty.
    """
    found = [
        (name, (int(x0), int(y0), int(x1), int(y1))) for name, x0, y0, x1, y1 in _BOX.findall(text)
    ]
    for name, (x0, y0, x1, y1) in found:
        if not (x0 < x1 < SIDE and y0 < y1 < SIDE):
            raise ValueError(
                f"boxes: wanted x0 < x1 and y0 < y1, all at most {SIDE - 1}, got "
                f"({x0}, {y0}) -> ({x1}, {y1}) of {name}"
            )
    if not found or said_boxes(found, SIDE) != text:
        raise ValueError(f"boxes: wanted `name at (x0, y0) -> (x1, y1), ...`, got {text!r}")
    return found
