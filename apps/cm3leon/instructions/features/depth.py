"""Depth by a network, and normals by the depth's slopes, as ControlNet's (arXiv 2302.05543).

Takes a folder of transformers' DPT (arXiv 2103.13413) or Depth Anything (arXiv 2401.10891), whose
output is relative inverse depth; gives extractors.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from cm3leon.instructions.features.published import inputs_of, open_model

STEEPNESS = 4.0
"""Slope of a surface that goes through the whole range of depths across the picture's width. Units
of relative depth are nobody's, so this is a choice: at 1 nearly all would be the blue of a wall."""


def open_depth(folder: Path, device: str) -> Callable[[np.ndarray], np.ndarray]:
    """Return the extractor of a folder: near is white; errors as `open_feature` tells them."""
    nearness = _nearness(folder, device)

    def depth(pixels: np.ndarray) -> np.ndarray:
        grey = np.round(nearness(pixels) * 255).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)

    return depth


def open_normals(folder: Path, device: str) -> Callable[[np.ndarray], np.ndarray]:
    """Return the extractor of normals from a depth model; errors as `open_feature` tells them."""
    nearness = _nearness(folder, device)
    return lambda pixels: normals_of(nearness(pixels))


def normals_of(nearness: np.ndarray) -> np.ndarray:
    """Return normals as colours: x to the right, y down and z to the eye are red, green and blue.

    Args:
        nearness: (H, W) float32, 0 for the farthest to 1 for the nearest.

    Returns:
        (H, W, 3) uint8; -1..1 is 0..255, so a wall that faces the eye is (128, 128, 255).
    """
    steep = STEEPNESS * nearness.shape[1] / 8  # Sobel's kernel gives 8 times a pixel's slope
    across, down = (
        cv2.Sobel(nearness, cv2.CV_32F, *order, ksize=3) * steep for order in ((1, 0), (0, 1))
    )
    normals = np.stack([-across, -down, np.ones_like(across)], -1)
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    return np.round((normals + 1) / 2 * 255).astype(np.uint8)


def _nearness(folder: Path, device: str) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function from pixels (H, W, 3) to nearness (H, W) in 0..1."""
    processor, model = open_model("AutoModelForDepthEstimation", folder, device)

    @torch.no_grad()
    def nearness(pixels: np.ndarray) -> np.ndarray:
        found = model(**inputs_of(processor, pixels, device)).predicted_depth  # (1, h, w)
        found = F.interpolate(found[:, None].float(), pixels.shape[:2], mode="bicubic")[0, 0]
        low, high = found.aminmax()
        return ((found - low) / (high - low).clamp(min=1e-12)).clamp(0, 1).cpu().numpy()

    return nearness
