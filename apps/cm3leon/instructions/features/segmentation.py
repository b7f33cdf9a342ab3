"""Semantic segmentation as a picture in which a class has one colour, everywhere.

Takes a folder of transformers' SegFormer (arXiv 2105.15203) or UperNet (arXiv 1807.10221), trained
on whatever classes; ControlNet's are ADE20K's 150. Gives an extractor.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from cm3leon.instructions.features.published import inputs_of, open_model


def palette(count: int) -> np.ndarray:
    """Return the colours of classes 0, 1, ...: PASCAL VOC's map, (count, 3) uint8.

    A number's bits go to red, green and blue in turn, the last ones to the channels' highest bits:
    neighbouring classes look different, and no two are the same.
    """
    numbers = np.arange(count)
    channels = []
    for channel in range(3):
        bits = [((numbers >> (3 * place + channel)) & 1) << (7 - place) for place in range(8)]
        channels.append(np.bitwise_or.reduce(bits))
    return np.stack(channels, -1).astype(np.uint8)


def open_segmentation(folder: Path, device: str) -> Callable[[np.ndarray], np.ndarray]:
    """Return the extractor of a folder; errors as `open_feature` tells them."""
    processor, model = open_model("AutoModelForSemanticSegmentation", folder, device)
    colours = palette(model.config.num_labels + 1)[1:]  # black is the map's class 0, here none

    @torch.no_grad()
    def segmentation(pixels: np.ndarray) -> np.ndarray:
        logits = model(**inputs_of(processor, pixels, device)).logits  # (1, C, h, w)
        logits = F.interpolate(logits.float(), pixels.shape[:2], mode="bilinear")
        return colours[logits[0].argmax(0).cpu().numpy()]

    return segmentation
