"""Figures of a VQGAN: PSNR, SSIM, use of the codebook, Fréchet distance of features."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


def psnr(reconstruction: Tensor, images: Tensor) -> Tensor:
    """Return the PSNR of each picture in dB, (B, 3, H, W) in [-1, 1] -> (B,).

    The peak is 2, the width of the range. The PSNR of an exact copy is infinite.
    """
    mse = (reconstruction.clamp(-1, 1) - images).float().square().mean((1, 2, 3))
    return 10.0 * torch.log10(4.0 / mse)


class CodebookUse(NamedTuple):
    """Use of a codebook by a set of codes."""

    used_share: float
    """Share of the codebook that occurs at all."""
    entropy_bits: float
    """Entropy of the codes' frequencies: bits per code if each is coded on its own."""
    perplexity_share: float
    """`2 ** entropy_bits` over the size of the codebook; 1 if all codes are equally frequent."""


def codebook_use(codes: Tensor, num_codes: int) -> CodebookUse:
    """Return statistics of integer codes of any shape; see `CodebookUse`."""
    if codes.numel() == 0:
        raise ValueError("codes: wanted at least one, got none")
    frequency = torch.bincount(codes.flatten(), minlength=num_codes).double() / codes.numel()
    entropy = -float(torch.special.xlogy(frequency, frequency).sum()) / math.log(2)
    return CodebookUse(float((frequency > 0).double().mean()), entropy, 2.0**entropy / num_codes)


def ssim(reconstruction: Tensor, images: Tensor) -> Tensor:
    """Return the structural similarity of each picture, (B, 3, H, W) in [-1, 1] -> (B,).

    It is 1 for a copy, and that of 8-bit pictures: black counts as 0. The Gaussian window has 11
    pixels and sigma 1.5 and lies wholly inside the picture; the mean is over positions and channels
    (Wang et al., doi:10.1109/TIP.2003.819861).

    Raises:
        ValueError: A side has fewer than 11 pixels.
    """
    if min(images.shape[2:]) < 11:
        raise ValueError(f"images: wanted sides of at least 11 pixels, got {tuple(images.shape)}")
    kind = torch.promote_types(images.dtype, torch.float32)
    x, y = reconstruction.clamp(-1, 1).to(kind) + 1, images.to(kind) + 1
    offsets = torch.arange(-5, 6, device=x.device, dtype=kind)
    window = torch.exp(-(offsets**2) / (2 * 1.5**2))
    window = window / window.sum()

    def blurred(grid: Tensor) -> Tensor:
        flat = grid.flatten(0, 1)[:, None]  # (B * 3, 1, H, W)
        return F.conv2d(F.conv2d(flat, window.view(1, 1, 1, 11)), window.view(1, 1, 11, 1))

    mean_x, mean_y = blurred(x), blurred(y)
    variance_x = blurred(x * x) - mean_x**2
    variance_y = blurred(y * y) - mean_y**2
    covariance = blurred(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2  # 2 is the width of the range
    similarity = ((2 * mean_x * mean_y + c1) * (2 * covariance + c2)) / (
        (mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2)
    )
    return similarity.reshape(len(x), -1).mean(1)


def frechet_distance(first: Tensor, second: Tensor) -> float:
    """Return the Fréchet distance of two sets of features, (N, D) and (M, D).

    Taken as normal distributions: `|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2))`. On Inception-v3's
    2048 pooled features of pictures and of their reconstructions it is rFID (Heusel et al., arXiv
    1706.08500). This package has no Inception weights; any function from pictures to vectors will
    do.

    Raises:
        ValueError: A set has fewer than two rows, or their widths differ.
    """
    if first.ndim != 2 or first.shape[1:] != second.shape[1:] or min(len(first), len(second)) < 2:
        raise ValueError(
            f"features: wanted (N, D) and (M, D) of at least 2 rows, "
            f"got {tuple(first.shape)} and {tuple(second.shape)}"
        )
    first, second = first.double(), second.double()
    c1, c2 = (torch.atleast_2d(torch.cov(features.T)) for features in (first, second))
    values, vectors = torch.linalg.eigh(c1)
    root = vectors * values.clamp_min(0).sqrt() @ vectors.T  # symmetric root of c1
    # tr (c1 c2)^(1/2) = tr (root c2 root)^(1/2), which is symmetric
    cross = torch.linalg.eigvalsh(root @ c2 @ root).clamp_min(0).sqrt().sum()
    shift = (first.mean(0) - second.mean(0)).square().sum()
    return max(0.0, float(shift + c1.trace() + c2.trace() - 2 * cross))
