"""PSNR, SSIM and LPIPS of pictures and their reconstructions.

SSIM and LPIPS, with VGG16, are cm3-imagetok's, which its tests hold against scikit-image and the
lpips package.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from cm3_imagetok import PerceptualLoss, ssim as pictures_ssim, to_tensor
from cm3leon.evaluation.measures.inputs import checked_pixels
from cm3leon.evaluation.measures.provenance import sha256_of_weights, tool_version, weight_file

BATCH = 16
VGG16 = "torchvision's vgg16-397923af.pth"
LINEAR = "the lpips package's lpips/weights/v0.1/vgg.pth"


def psnr(rebuilt: np.ndarray, real: np.ndarray) -> np.ndarray:
    """Return 10 log10(255^2 / mean squared error) in dB of each pair, infinite for a copy.

    Args:
        rebuilt: (N, H, W, 3) uint8.
        real: (N, H, W, 3) uint8.

    Returns:
        (N,) float64.

    Raises:
        ValueError: Other shapes or dtypes, or the two differ in shape.
    """
    errors = [
        np.square(a.astype(np.float64) - b).mean((1, 2, 3)) for a, b in _batches(rebuilt, real)
    ]
    with np.errstate(divide="ignore"):
        return 10 * np.log10(255**2 / np.concatenate(errors))


def ssim(rebuilt: np.ndarray, real: np.ndarray) -> np.ndarray:
    """Return the structural similarity of each pair, 1 for a copy; arguments as of `psnr`.

    Wang et al., doi:10.1109/TIP.2003.819861: a Gaussian window of 11 pixels and sigma 1.5, wholly
    inside the picture, the mean over places and colour channels, levels 0..255. (The same formula
    on levels -1..1 is another figure, since SSIM depends on the mean.)

    Raises:
        ValueError: As `psnr`, or a side has fewer than 11 pixels.
    """
    found = []
    for pair in _batches(rebuilt, real, least=11):
        one, other = (
            torch.from_numpy(part).permute(0, 3, 1, 2).double() / 127.5 - 1 for part in pair
        )
        found.append(pictures_ssim(one, other).numpy())
    return np.concatenate(found)


class Lpips:
    """LPIPS with VGG16 (Zhang et al., arXiv 1801.03924), from local files of weights.

    Papers also report LPIPS with AlexNet, whose values are another scale.
    """

    name = "lpips-vgg"

    def __init__(self, vgg16: Path, linear: Path, *, device: str = "cpu") -> None:
        """Read the weights.

        Args:
            vgg16: Torchvision's `vgg16-397923af.pth`, or the folder that has it.
            linear: The lpips package's `vgg.pth` of version 0.1, or the folder that has it.
            device: Where the network runs.

        Raises:
            ValueError: A file is missing (says which is wanted and where), damaged, or other
                weights.
        """
        files = weight_file("vgg16", vgg16, VGG16), weight_file("linear", linear, LINEAR)
        self._loss = PerceptualLoss.from_files(*files).to(device)
        self._device = device
        self.description: dict[str, Any] = {
            "name": self.name,
            "tool": "cm3-imagetok",
            "version": tool_version("cm3-imagetok"),
            "weights": [path.name for path in files],
            "sha256": [sha256_of_weights(path) for path in files],
        }
        """JSON for the result."""

    def __call__(self, rebuilt: np.ndarray, real: np.ndarray) -> np.ndarray:
        """Return the distance (N,) of each pair, 0 for a copy; arguments as of `psnr`.

        Raises:
            ValueError: As `psnr`, or a side has fewer than 16 pixels.
        """
        found = []
        with torch.inference_mode():
            for pair in _batches(rebuilt, real, least=16):
                one, other = (to_tensor(part).to(self._device) for part in pair)
                found.append(self._loss(one, other).double().cpu().numpy())
        return np.concatenate(found)


def _batches(
    rebuilt: np.ndarray, real: np.ndarray, least: int = 1
) -> list[tuple[np.ndarray, np.ndarray]]:
    one, other = checked_pixels("rebuilt", rebuilt), checked_pixels("real", real)
    if one.shape != other.shape:
        raise ValueError(f"real: wanted the shape of rebuilt {one.shape}, got {other.shape}")
    if min(one.shape[1:3]) < least:
        raise ValueError(f"rebuilt: wanted sides of at least {least} pixels, got {one.shape[1:3]}")
    return [
        (one[start : start + BATCH], other[start : start + BATCH])
        for start in range(0, len(one), BATCH)
    ]
