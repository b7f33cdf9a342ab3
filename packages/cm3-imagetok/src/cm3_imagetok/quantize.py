"""Vector quantizers: continuous grids (B, C, h, w) to codes (B, h, w) and back.

Each returns the quantized grid with a straight-through gradient, the codes and the loss of its own
training. Codebooks learn by gradient (`NearestQuantizer`; van den Oord et al., arXiv 1711.00937,
equation 3) or by moving averages (`EMAQuantizer`; the same paper, appendix A.1).
`revive_dead_codes` keeps a codebook from collapsing.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Quantized(NamedTuple):
    """What a quantizer gives in training."""

    grid: Tensor
    """(B, C, h, w): code vectors, gradient straight through to the input."""
    codes: Tensor
    """(B, h, w) int64."""
    loss: Tensor
    """Scalar:

    codebook loss (where the codebook learns by gradient) plus beta times commitment loss.
    """


class NearestQuantizer(nn.Module):
    """Nearest code vector in L2; the codebook learns by gradient.

    The loss is ``|sg(z) - e|^2 + beta |z - sg(e)|^2``: beta weighs the commitment of the encoder,
    as the paper has it (taming-transformers' "legacy" form weighs the other term).

    Args:
        num_codes: Codes in the codebook.
        dim: Channels of the grid.
        beta: Weight of the commitment loss.
        normalise: Compare and return unit vectors (ViT-VQGAN, arXiv 2110.04627; LlamaGen).
    """

    def __init__(
        self, num_codes: int, dim: int, beta: float = 0.25, normalise: bool = False
    ) -> None:
        super().__init__()
        self.beta = beta
        self.normalise = normalise
        self.embedding = nn.Embedding(num_codes, dim)
        nn.init.uniform_(self.embedding.weight, -1.0 / num_codes, 1.0 / num_codes)
        if normalise:
            nn.init.normal_(self.embedding.weight)

    @property
    def num_codes(self) -> int:
        """Size of the codebook."""
        return self.embedding.num_embeddings

    @property
    def codebook(self) -> Tensor:
        """(num_codes, dim) code vectors as they are compared and returned."""
        return (
            F.normalize(self.embedding.weight, dim=-1) if self.normalise else self.embedding.weight
        )

    def nearest(self, vectors: Tensor) -> Tensor:
        """Index of the nearest code, (N, dim) -> (N,). Distances are taken in float32."""
        codebook = self.codebook.float()
        # |z - e|^2 = |z|^2 - 2 z.e + |e|^2, and |z|^2 is the same for every code
        scores = torch.addmm(
            (codebook**2).sum(-1), vectors.float(), codebook.T, alpha=-2.0
        )  # (N, num_codes)
        return scores.argmin(-1)

    def encode(self, z: Tensor) -> Tensor:
        """Codes of a grid, (B, C, h, w) -> (B, h, w)."""
        b, _, h, w = z.shape
        return self.nearest(self._vectors(z)).view(b, h, w)

    def decode(self, codes: Tensor) -> Tensor:
        """Grid of codes, (B, h, w) -> (B, C, h, w)."""
        return F.embedding(codes, self.codebook).permute(0, 3, 1, 2)

    def forward(self, z: Tensor) -> Quantized:
        """Quantize with a straight-through gradient; see `Quantized`."""
        b, _, h, w = z.shape
        vectors = self._vectors(z)
        codes = self.nearest(vectors.detach())
        chosen = F.embedding(codes, self.codebook).to(vectors.dtype)  # (N, dim)
        loss = self._learn(vectors, chosen, codes)
        grid = vectors + (chosen - vectors).detach()
        return Quantized(grid.view(b, h, w, -1).permute(0, 3, 1, 2), codes.view(b, h, w), loss)

    def _vectors(self, z: Tensor) -> Tensor:
        vectors = z.permute(0, 2, 3, 1).reshape(-1, z.shape[1])  # (B * h * w, C)
        return F.normalize(vectors, dim=-1) if self.normalise else vectors

    def _learn(self, vectors: Tensor, chosen: Tensor, codes: Tensor) -> Tensor:
        commitment = F.mse_loss(vectors, chosen.detach())
        return F.mse_loss(chosen, vectors.detach()) + self.beta * commitment

    @torch.no_grad()
    def set_codes(self, codes: Tensor, vectors: Tensor) -> None:
        """Overwrite code vectors: codes (N,), vectors (N, dim)."""
        self.embedding.weight[codes] = vectors.to(self.embedding.weight.dtype)


class EMAQuantizer(NearestQuantizer):
    """Nearest code vector in L2; a code is the moving average of the vectors it was given.

    Args:
        num_codes: Codes in the codebook.
        dim: Channels of the grid.
        beta: Weight of the commitment loss.
        decay: Decay of the moving averages per step.
    """

    cluster_size: Tensor
    cluster_sum: Tensor

    def __init__(self, num_codes: int, dim: int, beta: float = 0.25, decay: float = 0.99) -> None:
        super().__init__(num_codes, dim, beta)
        self.decay = decay
        self.embedding.weight.requires_grad_(False)
        self.register_buffer("cluster_size", torch.ones(num_codes))
        self.register_buffer("cluster_sum", self.embedding.weight.detach().clone())

    def _learn(self, vectors: Tensor, chosen: Tensor, codes: Tensor) -> Tensor:
        if self.training:
            self._update(vectors.detach().float(), codes)
        return self.beta * F.mse_loss(vectors, chosen)

    @torch.no_grad()
    def _update(self, vectors: Tensor, codes: Tensor) -> None:
        counts = torch.bincount(codes, minlength=self.num_codes).float()
        sums = torch.zeros_like(self.cluster_sum).index_add_(0, codes, vectors)
        self.cluster_size.lerp_(counts, 1 - self.decay)
        self.cluster_sum.lerp_(sums, 1 - self.decay)
        # the floor keeps a code that nobody chooses where it is
        self.embedding.weight.copy_(self.cluster_sum / self.cluster_size.clamp_min(1e-5)[:, None])

    @torch.no_grad()
    def set_codes(self, codes: Tensor, vectors: Tensor) -> None:
        """Overwrite code vectors and their averages: codes (N,), vectors (N, dim)."""
        super().set_codes(codes, vectors)
        self.cluster_size[codes] = 1.0
        self.cluster_sum[codes] = vectors.to(self.cluster_sum.dtype)


@torch.no_grad()
def revive_dead_codes(
    quantizer: NearestQuantizer,
    z: Tensor,
    usage: Tensor,
    min_usage: float,
    generator: torch.Generator,
) -> int:
    """Move codes that are hardly used onto vectors of the present batch.

    Args:
        quantizer: The quantizer whose codebook is mended, in place.
        z: (B, C, h, w) grid from the encoder, before quantization.
        usage: (num_codes,) how often each code was used lately, in any unit.
        min_usage: Codes with less usage than this are moved.
        generator: Draws the vectors.

    Returns:
        How many codes were moved.
    """
    dead = torch.nonzero(usage < min_usage).flatten()
    if not len(dead):
        return 0
    vectors = z.permute(0, 2, 3, 1).reshape(-1, z.shape[1])
    order = torch.randperm(len(vectors), generator=generator)[: len(dead)].to(vectors.device)
    quantizer.set_codes(dead[: len(order)], vectors[order].float())
    return len(order)
