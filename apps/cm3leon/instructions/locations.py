"""Where things are, in words: `dog at (12, 30) -> (200, 255), cat at ...`.

Corners are whole numbers of 0 to 255 (arXiv 2309.02591, figure 15), as of a picture of 256 x 256,
whatever the size of the run's pictures.
"""

from __future__ import annotations

from collections.abc import Sequence

GRID = 256
"""Side of the picture that locations are given in."""


def location(box: Sequence[float], size: int) -> str | None:
    """Return a box (x0, y0, x1, y1), in pixels of a picture `size` x `size`, in words.

    None: it is too thin to have two edges.
    """
    x0, y0, x1, y1 = (min(GRID - 1, max(0, round(value * GRID / size))) for value in box)
    return f"({x0}, {y0}) -> ({x1}, {y1})" if x0 < x1 and y0 < y1 else None


def list_of(labels: Sequence[str]) -> str:
    """Return each name once, with commas between: what stands in for a caption."""
    return ", ".join(dict.fromkeys(labels))
