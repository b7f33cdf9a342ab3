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
"""Pixels of the shorter side on which scribbles are found: it is what a hand would leave out."""
SHORTEST = 0.1
"""Length of the shortest stroke, over the longer side."""
WOBBLE = 0.01
"""How far a stroke may leave its edge, over the longer side."""


def canny(pixels: np.ndarray) -> np.ndarray:
    """Return Canny's edges (doi 10.1109/TPAMI.1986.4767851), a pixel wide."""
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    return _in_colour(cv2.Canny(grey, LOW, HIGH))


def scribble(pixels: np.ndarray) -> np.ndarray:
    """Return thick strokes along the long edges, straightened: a child's drawing of the picture.

    ControlNet synthesises scribbles so from human or HED edges; here Canny's of a blurred, small
    copy take their place.
    """
    height, width = pixels.shape[:2]
    scale = min(1.0, SCRIBBLE_SIDE / min(height, width))
    small = (max(1, round(width * scale)), max(1, round(height * scale)))
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    grey = cv2.GaussianBlur(cv2.resize(grey, small, interpolation=cv2.INTER_AREA), (0, 0), 2.0)
    edges = cv2.Canny(grey, LOW / 2, HIGH / 2)
    lines, _ = cv2.findContours(edges, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    drawn = np.zeros((height, width), np.uint8)
    longer = max(small)
    back = np.array([width / small[0], height / small[1]])
    for line in lines:
        if cv2.arcLength(line, closed=False) < SHORTEST * longer:
            continue
        simple = cv2.approxPolyDP(line, WOBBLE * longer, closed=True)  # (N, 1, 2), x and y
        points = np.round((simple + 0.5) * back - 0.5).astype(np.int32)
        thickness = max(1, round(min(height, width) / 100))
        cv2.polylines(drawn, [points], True, 255, thickness, cv2.LINE_8)
    return _in_colour(drawn)


def _in_colour(grey: np.ndarray) -> np.ndarray:
    """Turn white lines (H, W) into black ones (H, W, 3)."""
    return np.repeat(255 - grey[:, :, None], 3, axis=2)
