"""Boxes as plain text, as the paper writes them: "fox at (19, 12) -> (104, 255), ..."."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

SIDE = 256
"""Places count from 0 to 255 whatever the size of the picture (arXiv 2309.02591, figure 15)."""


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
