"""A regulariser for codes that a language model can predict.

A tokenizer trained for reconstruction alone may spread a picture over codes in a way that a
left-to-right model cannot predict. `CausalPredictor` predicts each code vector from the earlier
ones in raster order; its error, added to the tokenizer's loss, makes the codes more predictable
(Ramanujan et al., arXiv 2412.16326).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class CausalPredictor(nn.Module):
    """A small causal transformer over the code vectors of a grid.

    Args:
        dim: Channels of a code vector.
        positions: Codes per picture, h * w.
        width: Channels of the transformer.
        num_heads: Attention heads.
        num_layers: Blocks.
    """

    def __init__(
        self, dim: int, positions: int, width: int = 64, num_heads: int = 2, num_layers: int = 1
    ) -> None:
        super().__init__()
        self.embed = nn.Linear(dim, width)
        self.start = nn.Parameter(torch.zeros(width))
        self.positions = nn.Parameter(torch.randn(positions, width) * 0.02)
        self.blocks = nn.ModuleList(_Block(width, num_heads) for _ in range(num_layers))
        self.head = nn.Linear(width, dim)

    def forward(self, grid: Tensor) -> Tensor:
        """Return the share of the code vectors' variance that the earlier ones do not explain.

        Args:
            grid: (B, dim, h, w) quantized grid; its gradient reaches the tokenizer's encoder.

        Returns:
            A scalar: 0 if every code vector follows from the earlier ones, 1 if they say nothing.
            Unlike the error itself, the share does not change when all vectors shrink.
        """
        with torch.autocast(grid.device.type, enabled=False):  # too small to gain from it
            return self._unexplained(grid.flatten(2).mT.float())

    def _unexplained(self, vectors: Tensor) -> Tensor:
        """Return the share for code vectors (B, h * w, dim)."""
        vectors = vectors / (vectors.detach().std() + 1e-6)
        start = self.start.expand(len(vectors), 1, -1)
        x = torch.cat([start, self.embed(vectors[:, :-1])], 1) + self.positions  # (B, n, width)
        for block in self.blocks:
            x = block(x)
        error = (self.head(x) - vectors).square().sum(-1).mean()
        return error / vectors.var((0, 1)).sum()


class _Block(nn.Module):
    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, n, width) to (B, n, width)."""
        heads = self.qkv(self.norm1(x)).unflatten(-1, (3, self.num_heads, -1))
        query, key, value = heads.permute(2, 0, 3, 1, 4)  # 3 x (B, heads, n, width / heads)
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        return x + self.down(F.relu(self.up(self.norm2(x))))
