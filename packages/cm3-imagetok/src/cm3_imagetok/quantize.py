"""Vector quantizers: continuous grids (B, C, h, w) to codes (B, h, w) and back.

Each returns the quantized grid with a straight-through gradient, the codes, and the loss that
trains it. Codebooks learn by gradient (`NearestQuantizer`; van den Oord et al., arXiv 1711.00937,
equation 3), by moving averages (`EMAQuantizer`; the same paper, appendix A.1), or as the classes of
a sampled classifier (`GumbelQuantizer`; Jang et al., arXiv 1611.01144). All take their products in
float32, under autocast too: rounding to bfloat16 would swap codes that are nearly as good.
`revive_dead_codes` keeps a codebook of any kind from collapsing.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SCORES_AT_ONCE = 2**24
"""Distances or logits held in memory at once, 64 MiB of float32."""


def _without_autocast(x: Tensor) -> torch.autocast:
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
        return F.normalize(weight.to(torch.promote_types(weight.dtype, torch.float32)), dim=-1)

    def nearest(self, vectors: Tensor) -> Tensor:
        """Return the index of the nearest code in float32, (N, dim) -> (N,)."""
        codebook = self.codebook.detach().float()
        # |z - e|^2 = |z|^2 - 2 z.e + |e|^2, and |z|^2 is the same for every code
        squares = (codebook**2).sum(-1)
        parts = vectors.float().split(max(1, SCORES_AT_ONCE // self.num_codes))
        with _without_autocast(vectors):
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

    The loss is `beta |z - e|^2`, for the encoder alone.

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
        # the floor keeps an unused code where it is
        self.embedding.weight.copy_(self.cluster_sum / self.cluster_size.clamp_min(1e-5)[:, None])

    @torch.no_grad()
    def set_codes(self, codes: Tensor, vectors: Tensor) -> None:
        """Overwrite the vectors and averages of codes (N,) with vectors (N, dim)."""
        super().set_codes(codes, vectors)
        self.cluster_size[codes] = 1.0
        self.cluster_sum[codes] = vectors.to(self.cluster_sum.dtype)


class GumbelQuantizer(nn.Module):
    """Classes of a 1 x 1 projection as codes, each with a learned vector.

    In training a class is drawn by the Gumbel-softmax trick: the drawn vector forward, the gradient
    of the soft mixture backward. In evaluation the largest logit wins (taming-transformers draws
    there too). The loss is the divergence of the classes' distribution from an even one,
    `kl_weight * sum_k p_k log(p_k * num_codes)`, averaged over positions.

    Args:
        num_codes: Codes in the codebook.
        dim: Channels of the grid.
        kl_weight: Weight of the divergence.
        temperature: Temperature of the soft mixture; set the attribute to lower it in training.
    """

    def __init__(
        self, num_codes: int, dim: int, kl_weight: float = 5e-4, temperature: float = 1.0
    ) -> None:
        super().__init__()
        self.kl_weight = kl_weight
        self.temperature = temperature
        self.proj = nn.Conv2d(dim, num_codes, 1)
        self.embed = nn.Embedding(num_codes, dim)

    @property
    def num_codes(self) -> int:
        """Size of the codebook."""
        return self.embed.num_embeddings

    @property
    def codebook(self) -> Tensor:
        """(num_codes, dim) code vectors."""
        return self.embed.weight

    def encode(self, z: Tensor) -> Tensor:
        """Return the codes of a grid, (B, C, h, w) -> (B, h, w)."""
        b, dim, h, w = z.shape
        vectors = z.permute(0, 2, 3, 1).reshape(-1, dim).float()  # (B * h * w, C)
        weight, bias = self._classifier()
        parts = vectors.split(max(1, SCORES_AT_ONCE // self.num_codes))
        with _without_autocast(z):
            codes = [torch.addmm(bias, part, weight.T).argmax(-1) for part in parts]
        return torch.cat(codes).view(b, h, w)

    def decode(self, codes: Tensor) -> Tensor:
        """Return the grid of codes, (B, h, w) -> (B, C, h, w)."""
        return self.embed(codes).permute(0, 3, 1, 2)

    def forward(self, z: Tensor, generator: torch.Generator | None = None) -> Quantized:
        """Quantize; in training, draw the codes.

        Args:
            z: (B, C, h, w) grid.
            generator: Draws the codes in training; None takes torch's own.

        Returns:
            See `Quantized`.
        """
        with _without_autocast(z):
            return self._forward(z, generator)

    def _forward(self, z: Tensor, generator: torch.Generator | None) -> Quantized:
        weight, bias = self.proj.weight.float(), self._bias.float()
        logits = F.conv2d(z.float(), weight, bias)  # (B, K, h, w)
        share = logits.softmax(1)
        loss = self.kl_weight * (share * (logits.log_softmax(1) + math.log(self.num_codes))).sum(1)
        if not self.training:
            codes = self.encode(z)
            return Quantized(self.decode(codes), codes, loss.mean())
        noise = torch.empty_like(logits).exponential_(generator=generator).log()
        soft = ((logits - noise) / self.temperature).softmax(1)
        codes = soft.argmax(1)
        hard = F.one_hot(codes, self.num_codes).movedim(-1, 1).to(soft.dtype)
        mixture = hard + soft - soft.detach()  # forward one-hot, backward soft
        grid = torch.einsum("bkhw,kc->bchw", mixture, self.embed.weight.float())
        return Quantized(grid.to(z.dtype), codes, loss.mean())

    @torch.no_grad()
    def set_codes(self, codes: Tensor, vectors: Tensor) -> None:
        """Let each of `codes` (N,) win at its vector of (N, dim), decoded as the winner so far.

        The code's row of the projection points at the vector and has the rows' average length; its
        bias makes it twice as likely there as the winner so far, whose code vector it copies.
        """
        weight, bias = self._classifier()
        vectors = vectors.float()
        with _without_autocast(vectors):
            best, winner = torch.addmm(bias, vectors, weight.T).max(-1)
        rows = F.normalize(vectors, dim=-1) * weight.norm(dim=-1).mean()
        biases = best + math.log(2.0) - (rows * vectors).sum(-1)
        self.proj.weight[codes] = rows[:, :, None, None].to(self.proj.weight.dtype)
        self._bias[codes] = biases.to(self._bias.dtype)
        self.embed.weight[codes] = self.embed.weight[winner]

    @property
    def _bias(self) -> Tensor:
        assert self.proj.bias is not None
        return self.proj.bias

    def _classifier(self) -> tuple[Tensor, Tensor]:
        return self.proj.weight.detach()[:, :, 0, 0].float(), self._bias.detach().float()


Quantizer = NearestQuantizer | GumbelQuantizer
"""The quantizers of a `VQGAN`; `EMAQuantizer` is a `NearestQuantizer`."""


@torch.no_grad()
def revive_dead_codes(
    quantizer: Quantizer,
    z: Tensor,
    usage: Tensor,
    min_usage: float,
    generator: torch.Generator,
) -> int:
    """Move rarely used codes onto vectors of the current batch.

    Args:
        quantizer: The quantizer, changed in place.
        z: (B, C, h, w) grid from the encoder, before quantization.
        usage: (num_codes,) recent use of each code, in any unit.
        min_usage: Codes used less than this are moved.
        generator: Draws the vectors.

    Returns:
        The number of codes moved.
    """
    dead = torch.nonzero(usage < min_usage).flatten()
    if not len(dead):
        return 0
    vectors = z.permute(0, 2, 3, 1).reshape(-1, z.shape[1])
    order = torch.randperm(len(vectors), generator=generator)[: len(dead)].to(vectors.device)
    quantizer.set_codes(dead[: len(order)], vectors[order].float())
    return len(order)
