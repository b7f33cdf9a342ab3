"""Vector quantizers: continuous grids (B, C, h, w) to codes (B, h, w) and back.

Each returns the quantized grid with a straight-through gradient, the codes, and the loss that
trains it. Codebooks learn by gradient (`NearestQuantizer`; van den Oord et al., arXiv 1711.00937,
equation 3) or by moving averages (`EMAQuantizer`; the same paper, appendix A.1); a third kind has
its own file, `cm3_imagetok.gumbel`. All take their products in float32, under autocast too:
rounding to bfloat16 would swap codes that are nearly as good. Codes may be moved (`set_codes`)
between the forward and the backward pass: gradients are those of the codes that were used.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cm3_imagetok.ranks import sum_over_ranks

SCORES_AT_ONCE = 2**24
"""Distances or logits held in memory at once, 64 MiB of float32."""
UNUSED = 1e-5
"""Average number of vectors a step below which the average of a code means nothing any more."""


def without_autocast(x: Tensor) -> torch.autocast:
    """Return a context for the device of `x` in which products keep their types."""
    return torch.autocast("cpu" if x.is_meta else x.device.type, enabled=False)


class Quantized(NamedTuple):
    """A quantizer's output in training."""

    grid: Tensor
    """(B, C, h, w) code vectors; the gradient goes straight through to the input."""
    codes: Tensor
    """(B, h, w) codes, int64."""
    loss: Tensor
    """Scalar that trains the codebook and ties the encoder to it; see each quantizer."""


class NearestQuantizer(nn.Module):
    """Nearest code vector in L2; the codebook learns by gradient.

    The loss is `|sg(z) - e|^2 + beta |z - sg(e)|^2`: beta weighs the encoder's commitment, as in
    the paper (taming-transformers' "legacy" form weighs the other term).

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
        """(num_codes, dim) code vectors, normalised if `normalise` is set."""
        weight = self.embedding.weight
        if not self.normalise:
            return weight
        # copied, since the backward pass reads it again
        dtype = torch.promote_types(weight.dtype, torch.float32)
        return F.normalize(weight.to(dtype, copy=True), dim=-1)

    def nearest(self, vectors: Tensor) -> Tensor:
        """Return the index of the nearest code in float32, (N, dim) -> (N,)."""
        codebook = self.codebook.detach().float()
        # |z - e|^2 = |z|^2 - 2 z.e + |e|^2, and |z|^2 is the same for every code
        squares = (codebook**2).sum(-1)
        parts = vectors.float().split(max(1, SCORES_AT_ONCE // self.num_codes))
        with without_autocast(vectors):
            distances = (torch.addmm(squares, part, codebook.T, alpha=-2.0) for part in parts)
            return torch.cat([part.argmin(-1) for part in distances])

    def encode(self, z: Tensor) -> Tensor:
        """Return the codes of a grid, (B, C, h, w) -> (B, h, w)."""
        b, _, h, w = z.shape
        return self.nearest(self._vectors(z)).view(b, h, w)

    def decode(self, codes: Tensor) -> Tensor:
        """Return the grid of codes, (B, h, w) -> (B, C, h, w)."""
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
        """Overwrite the vectors of codes (N,) with vectors (N, dim)."""
        self.embedding.weight[codes] = vectors.to(self.embedding.weight.dtype)


class EMAQuantizer(NearestQuantizer):
    """Nearest code vector in L2; a code is the moving average of the vectors assigned to it.

    The loss is `beta |z - e|^2`, for the encoder alone. A code that no vector is assigned to stays
    where it is. Processes that train together (`torch.distributed`) keep one codebook, the average
    over all their vectors; so all of them must call `forward` in training.

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
        counts = sum_over_ranks(torch.bincount(codes, minlength=self.num_codes).float())
        sums = torch.zeros_like(self.cluster_sum).index_add_(0, codes, vectors)
        sums = sum_over_ranks(sums)
        self.cluster_size.lerp_(counts, 1 - self.decay)
        self.cluster_sum.lerp_(sums, 1 - self.decay)
        # an unused code's size and sum decay alike, until their ratio is one of rounding errors
        used = (self.cluster_size > UNUSED)[:, None]
        means = self.cluster_sum / self.cluster_size.clamp_min(UNUSED)[:, None]
        self.embedding.weight.copy_(torch.where(used, means, self.embedding.weight))

    @torch.no_grad()
    def set_codes(self, codes: Tensor, vectors: Tensor) -> None:
        """Overwrite the vectors and averages of codes (N,) with vectors (N, dim)."""
        super().set_codes(codes, vectors)
        self.cluster_size[codes] = 1.0
        self.cluster_sum[codes] = vectors.to(self.cluster_sum.dtype)
