"""Gumbel-softmax quantizer: codes are the classes of a sampled classifier.

Grids (B, C, h, w) to codes (B, h, w) and back, as the quantizers of `cm3_imagetok.quantize`. Jang
et al., arXiv 1611.01144; as an image tokenizer, DALL-E's (arXiv 2102.12092, appendix A.2).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cm3_imagetok import quantize
from cm3_imagetok.quantize import Quantized, without_autocast

COLDEST = 1 / 16
"""DALL-E's last temperature: the drawn vector is then nearly the soft mixture of the gradient."""


def gumbel_temperature(step: int, total_steps: int) -> float:
    """Return the temperature of a training step: from 1 along a cosine to `COLDEST`, as DALL-E's.

    Args:
        step: Steps done.
        total_steps: Steps until the temperature is coldest; it stays there.
    """
    done = min(1.0, step / max(1, total_steps))
    return COLDEST + (1 - COLDEST) * (1 + math.cos(math.pi * done)) / 2


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
        temperature: Temperature of the soft mixture; set the attribute to lower it in training, as
            `gumbel_temperature` says.
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
        parts = vectors.split(max(1, quantize.SCORES_AT_ONCE // self.num_codes))
        with without_autocast(z):
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
        with without_autocast(z):
            return self._forward(z, generator)

    def _forward(self, z: Tensor, generator: torch.Generator | None) -> Quantized:
        # copied, since the backward pass reads them again, perhaps after `set_codes`
        weight, vectors = (
            part.to(torch.float32, copy=True) for part in (self.proj.weight, self.embed.weight)
        )
        bias = self._bias.float()
        logits = F.conv2d(z.float(), weight, bias)  # (B, K, h, w)
        share = logits.softmax(1)
        loss = self.kl_weight * (share * (logits.log_softmax(1) + math.log(self.num_codes))).sum(1)
        if not self.training:
            codes = self.encode(z)
            return Quantized(self.decode(codes).to(z.dtype), codes, loss.mean())
        noise = torch.empty_like(logits).exponential_(generator=generator).log()
        soft = ((logits - noise) / self.temperature).softmax(1)
        codes = soft.argmax(1)
        hard = F.one_hot(codes, self.num_codes).movedim(-1, 1).to(soft.dtype)
        mixture = hard + soft - soft.detach()  # forward one-hot, backward soft
        grid = torch.einsum("bkhw,kc->bchw", mixture, vectors)
        return Quantized(grid.to(z.dtype), codes, loss.mean())

    @torch.no_grad()
    def set_codes(self, codes: Tensor, vectors: Tensor) -> None:
        """Let each of `codes` (N,) win at its vector of (N, dim), decoded as the winner so far.

        The code's row of the projection points at the vector and has the rows' average length; its
        bias makes it twice as likely there as the winner so far, whose code vector it copies.
        """
        weight, bias = self._classifier()
        vectors = vectors.float()
        with without_autocast(vectors):
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
