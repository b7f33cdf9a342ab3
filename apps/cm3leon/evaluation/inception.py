"""Features of Inception-v3 for rFID, from a local file of weights."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from cm3_imagetok.checkpoint import load_tensors


def inception_features(path: Path) -> Callable[[np.ndarray], Tensor]:
    """What turns pixels (N, H, W, 3) uint8 into the features (N, 2048) that FID is defined on.

    Args:
        path: torch-fidelity's `weights-inception-2015-12-05-6726825d.pth` (the converted weights
            of the original FID), a local file.

    Raises:
        CheckpointError: The file is missing or damaged.
        ValueError: It holds other weights.
    """
    # torch-fidelity unpickles whatever a file holds: it gets a copy of the tensors alone.
    with tempfile.NamedTemporaryFile(suffix=".pth") as plain:
        torch.save(load_tensors(path), plain.name)
        try:
            model = FeatureExtractorInceptionV3("fid", ["2048"], plain.name)
        except RuntimeError as error:
            what = str(error).splitlines()
            raise ValueError(
                f"{path}: wanted torch-fidelity's Inception-v3, got other weights: "
                f"{what[min(1, len(what) - 1)].strip()[:200]}"
            ) from None

    def features(pixels: np.ndarray) -> Tensor:
        pictures = torch.from_numpy(pixels).permute(0, 3, 1, 2)
        with torch.inference_mode():
            return torch.cat([model(part)[0] for part in pictures.split(16)])

    return features
