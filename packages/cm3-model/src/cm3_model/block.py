"""One block of the decoder: attention and MLP on a normed residual stream, (B, T, D) to (B, T, D).

No biases, no dropout, no learnable layer norms (CM3Leon 2.3, arXiv 2309.02591) unless the config
picks Chameleon's parts (arXiv 2405.09818).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from cm3_model.appending import Append, AppendEvenly
from cm3_model.attention import Visible, attend, rotate
from cm3_model.config import DecoderConfig
from cm3_model.shared_prefixes import Rows

Checkpointing = Literal["none", "selective", "full"]
"""What backward finds of a block: all it needs ("none"); of the MLP its input alone, from which all
but its last product is computed again ("selective"); of the whole block its input alone ("full").
With "relu" in bfloat16 these are 28, 18 and 4 bytes a token and channel. To keep the results of all
products, as policies elsewhere do, would take 24."""


class Block(nn.Module):
    """Attention, then an MLP, each on the normed stream and added back to it."""

    def __init__(self, config: DecoderConfig, layer: int) -> None:
        """Build block number `layer`."""
        super().__init__()
        self.attention = Attention(config, layer)
        self.mlp = MLP(config)
        self.attention_norm = Norm(config)
        self.mlp_norm = Norm(config)
        self.norm_first = config.norm_placement == "before"
        self.checkpointing: Checkpointing = "none"
        """What is kept for backward, in training."""

    def forward(
        self,
        x: Tensor,
        rotation: Tensor | None,
        new: Append | AppendEvenly | None,
        visible: Visible = None,
    ) -> Tensor:
        """Return the stream (B, T, D) after this block."""
        again = self.training and new is None and torch.is_grad_enabled()
        # In here, so that it stays within what FSDP2 gathers and what `compile` compiles.
        if again and self.checkpointing == "full":
            return _computed_again(self._run, x, rotation, None, visible)
        return self._run(x, rotation, new, visible, again and self.checkpointing == "selective")

    def _run(
        self,
        x: Tensor,
        rotation: Tensor | None,
        new: Append | AppendEvenly | None,
        visible: Visible,
        mlp_again: bool = False,
    ) -> Tensor:
        if self.norm_first:
            x = x + self.attention(self.attention_norm(x), rotation, new, visible)
        else:
            x = x + self.attention_norm(self.attention(x, rotation, new, visible))
        return x + (_computed_again(self._mlp, x) if mlp_again else self._mlp(x))

    def _mlp(self, x: Tensor) -> Tensor:
        return self.mlp(self.mlp_norm(x)) if self.norm_first else self.mlp_norm(self.mlp(x))


def _computed_again(compute: Callable[..., Tensor], *inputs: Any) -> Tensor:
    """Compute, and keep the inputs alone for backward; nothing in a block is random."""
    result = checkpoint(compute, *inputs, use_reentrant=False, preserve_rng_state=False)
    return cast(Tensor, result)


class Norm(nn.Module):
    """Norm over the last dimension: mean 0, variance 1, nothing learnt (2.3); or RMS norm."""

    def __init__(self, config: DecoderConfig) -> None:
        """Build the kind that the config asks for."""
        super().__init__()
        self.eps = config.norm_eps
        self.weight = nn.Parameter(torch.ones(config.width)) if config.norm == "rms" else None

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (..., D)."""
        if self.weight is None:
            return F.layer_norm(x, x.shape[-1:], eps=self.eps)
        return F.rms_norm(x, x.shape[-1:], self.weight, self.eps)


class HeadNorm(nn.Module):
    """The learnt part of `head_norm`: scale and shift of every head's channels, or nothing."""

    def __init__(self, config: DecoderConfig, num_heads: int) -> None:
        """Build for `num_heads` heads."""
        super().__init__()
        shape = (num_heads, config.head_width)
        self.eps = config.qk_norm_eps
        affine = config.qk_norm_affine
        self.weight = nn.Parameter(torch.ones(shape)) if affine else None
        self.bias = nn.Parameter(torch.zeros(shape)) if affine else None


def head_norm(x: Tensor, *norms: HeadNorm) -> Tensor:
    """Normalise every head's channels (B, H, T, W); `norms` cover the heads in order.

    The result has the format of `x`, as values have: under autocast the norm itself is float32.
    """
    normed = F.layer_norm(x, x.shape[-1:], eps=norms[0].eps)
    weights = tuple(norm.weight for norm in norms if norm.weight is not None)
    biases = tuple(norm.bias for norm in norms if norm.bias is not None)
    if weights:
        normed = torch.addcmul(torch.cat(biases)[:, None], normed, torch.cat(weights)[:, None])
    return normed.type_as(x)


class Attention(nn.Module):
    """Causal multi-head self-attention; queries, keys and values come from one matrix."""

    def __init__(self, config: DecoderConfig, layer: int) -> None:
        """Build the attention of block number `layer`."""
        super().__init__()
        self.layer = layer
        self.head_width = config.head_width
        self.kv_heads = config.kv_heads
        rows = (config.num_heads + 2 * config.kv_heads) * config.head_width
        self.qkv = nn.Linear(config.width, rows, bias=False)
        self.out = nn.Linear(config.width, config.width, bias=False)
        self.query_norm = HeadNorm(config, config.num_heads) if config.qk_norm else None
        self.key_norm = HeadNorm(config, config.kv_heads) if config.qk_norm else None

    def forward(
        self,
        x: Tensor,
        rotation: Tensor | None,
        new: Append | AppendEvenly | None,
        visible: Visible = None,
    ) -> Tensor:
        """Attend within (B, T, D) and, with `new`, to the tokens in the cache."""
        heads = self.qkv(x).unflatten(-1, (-1, self.head_width)).transpose(1, 2)
        # Queries and keys go through the same steps, so both go at once.
        turned, value = heads.split((heads.shape[1] - self.kv_heads, self.kv_heads), dim=1)
        if self.query_norm is not None and self.key_norm is not None:
            turned = head_norm(turned, self.query_norm, self.key_norm)
        if rotation is not None:
            turned = rotate(turned, rotation)
        query, key = turned.split((turned.shape[1] - self.kv_heads, self.kv_heads), dim=1)
        prefixes: Sequence[tuple[Rows, Tensor, Tensor]] = ()
        if new is not None:
            key, value = new.write(self.layer, key, value)
            prefixes = new.prefixes(self.layer)
        mixed = attend(query, key, value, visible, prefixes)  # (B, H, T, W)
        return self.out(mixed.transpose(1, 2).flatten(2))  # (B, T, D)


class MLP(nn.Module):
    """Two matrices with a non-linearity between them; "swiglu" stacks a gate on the first."""

    def __init__(self, config: DecoderConfig) -> None:
        """Build the MLP."""
        super().__init__()
        self.gated = config.activation == "swiglu"
        rows = (2 if self.gated else 1) * config.mlp_hidden
        self.up = nn.Linear(config.width, rows, bias=False)
        self.activation = {"gelu": F.gelu, "relu": F.relu, "swiglu": F.silu}[config.activation]
        self.down = nn.Linear(config.mlp_hidden, config.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, T, D) to (B, T, D)."""
        if self.gated:
            gate, up = self.up(x).chunk(2, -1)  # 2 x (B, T, F)
            return self.down(self.activation(gate) * up)
        return self.down(self.activation(self.up(x)))
