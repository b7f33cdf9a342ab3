"""Shapes in pictures of things on plain paper: which pixels are thing, and boxes around them."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from cm3leon.data.palette import PAPERS, colour_of_paper, rgb

NEAR = 48
"""Most that a pixel of paper differs from the paper's colour, as a distance of RGB in 0..255."""
LEAST = 12
"""Pixels of a part, at 64 x 64; smaller ones are specks."""


def thing_mask(pixels: np.ndarray) -> np.ndarray:
    """Return which pixels (H, W) of a picture (H, W, 3) are not paper, holes in things filled."""
    paper = np.array(rgb(PAPERS[colour_of_paper(pixels)]))
    far = np.sqrt(((pixels.astype(np.float64) - paper) ** 2).sum(-1)) > NEAR
    return np.asarray(ndimage.binary_fill_holes(far))


def iou(one: np.ndarray, other: np.ndarray) -> float:
    """Return how much two masks (H, W) overlap, intersection over union; 0 where both are empty."""
    union = (one | other).sum()
    return float((one & other).sum() / union) if union else 0.0


def parts_of(mask: np.ndarray) -> list[tuple[float, float, float, float]]:
    """Return boxes (x0, y0, x1, y1) in pixels of the parts of a mask (H, W), specks aside."""
    labels, _ = ndimage.label(mask, np.ones((3, 3)))  # pyright: ignore
    least = LEAST * mask.size / 4096
    found = []
    for number, place in enumerate(ndimage.find_objects(labels), 1):
        if (labels[place] == number).sum() >= least:
            rows, columns = place
            found.append((columns.start, rows.start, columns.stop, rows.stop))
    return found


def box_iou(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """Return how much two boxes (x0, y0, x1, y1) overlap, intersection over union."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return width * height / (areas - width * height)


def around(boxes: list[tuple[float, float, float, float]]) -> tuple[float, float, float, float]:
    """Return the box around some boxes, at least one."""
    x0, y0, x1, y1 = zip(*boxes, strict=True)
    return min(x0), min(y0), max(x1), max(y1)
