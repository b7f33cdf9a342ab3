"""Edges without a network: Canny's, and scribbles drawn along the main ones.

Takes and gives pixels (H, W, 3), uint8. Lines are black on white: ControlNet's are white on black
(arXiv 2302.05543), but a tokenizer knows dark outlines from pictures, and few black pages. The same
pixels always give the same lines.
"""

from __future__ import annotations

import cv2
import numpy as np

LOW, HIGH = 100, 200
"""Slopes at which Canny's edges go on, and start: those of ControlNet and of OpenCV's guides."""
SCRIBBLE_SIDE = 128
"""Pixels of the shorter side on which strokes are found: a hand leaves out what is smaller."""
SHORTEST = 0.1
"""Extent of the shortest stroke, over the longer side."""


def canny(pixels: np.ndarray) -> np.ndarray:
    """Return Canny's edges (doi 10.1109/TPAMI.1986.4767851), a pixel wide."""
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    return _in_colour(cv2.Canny(grey, LOW, HIGH))


def scribble(pixels: np.ndarray) -> np.ndarray:
    """Return thick, smooth strokes along the long edges: a child's drawing of the picture.

    ControlNet makes scribbles by thinning, blurring and thresholding HED's edges; here the edges
    are Canny's, of a small, blurred copy, which shows what is large in the picture.
    """
    height, width = pixels.shape[:2]
    scale = min(1.0, SCRIBBLE_SIDE / min(height, width))
    small = (max(1, round(width * scale)), max(1, round(height * scale)))
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    grey = cv2.GaussianBlur(cv2.resize(grey, small, interpolation=cv2.INTER_AREA), (0, 0), 2.0)
    edges = cv2.Canny(grey, LOW / 2, HIGH / 2)
    _, numbers, boxes, _ = cv2.connectedComponentsWithStats(edges, connectivity=8)
    extent = boxes[:, [cv2.CC_STAT_WIDTH, cv2.CC_STAT_HEIGHT]].max(1)
    extent[0] = 0  # what is no edge
    long = (extent >= SHORTEST * max(small))[numbers]
    lines = cv2.resize(long.astype(np.uint8) * 255, (width, height))
    lines = cv2.GaussianBlur(lines, (0, 0), 1.0 / scale)
    return _in_colour(np.where(lines > 64, 255, 0).astype(np.uint8))


def _in_colour(grey: np.ndarray) -> np.ndarray:
    """Turn white lines (H, W) into black ones (H, W, 3)."""
    return np.repeat(255 - grey[:, :, None], 3, axis=2)
