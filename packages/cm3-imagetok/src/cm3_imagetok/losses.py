"""What a VQGAN is trained on and judged by.

Reconstruction loss, PSNR, and the use of the codebook.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


def reconstruction_loss(
    reconstruction: Tensor, images: Tensor, l1_weight: float = 1.0, l2_weight: float = 0.0
) -> Tensor:
    """Weighted L1 and L2 between pictures (B, 3, H, W); a scalar. Both weights 0 is an error."""
    if l1_weight <= 0 and l2_weight <= 0:
        raise ValueError(f"weights: wanted one above 0, got l1 {l1_weight} and l2 {l2_weight}")
    loss = images.new_zeros(())
    if l1_weight > 0:
        loss = loss + l1_weight * F.l1_loss(reconstruction, images)
    if l2_weight > 0:
        loss = loss + l2_weight * F.mse_loss(reconstruction, images)
    return loss


def psnr(reconstruction: Tensor, images: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each picture in dB: (B, 3, H, W) in [-1, 1] -> (B,).

    The peak is 2, the width of the range. An exact copy gives infinity.
    """
    mse = (reconstruction.clamp(-1, 1) - images).float().square().mean((1, 2, 3))
    return 10.0 * torch.log10(4.0 / mse)


class CodebookUse(NamedTuple):
    """How well a set of codes uses its codebook."""

    used_share: float
    """Share of the codes that occur at all."""
    entropy_bits: float
    """Entropy of the codes' frequencies: bits a code costs if each is coded on its own."""
    perplexity_share: float
    """``2 ** entropy_bits`` over the size of the codebook;

    1 when all codes are equally frequent.
    """


def codebook_use(codes: Tensor, num_codes: int) -> CodebookUse:
    """Statistics of integer codes of any shape; see `CodebookUse`."""
    if codes.numel() == 0:
        raise ValueError("codes: wanted at least one, got none")
    frequency = torch.bincount(codes.flatten(), minlength=num_codes).double() / codes.numel()
    entropy = -float(torch.special.xlogy(frequency, frequency).sum()) / math.log(2)
    return CodebookUse(float((frequency > 0).double().mean()), entropy, 2.0**entropy / num_codes)
