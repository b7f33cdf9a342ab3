"""The CM3Leon decoder, read from top to bottom: ids (B, T) in, logits (B, T, V) out.

Decoder-only as OPT and GPT-3, but without biases, dropout and learnable layer norms (CM3Leon 2.3,
arXiv 2309.02591). Norms stand before each sublayer and once before the logits. The config picks
other parts: with RMS norm, rotary positions, SwiGLU and query/key norm this is Chameleon
(arXiv 2405.09818).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from cm3_model.attention import (
    Visible,
    additive,
    attend,
    document_mask,
    document_starts,
    rotary_angles,
    rotate,
)
from cm3_model.config import DecoderConfig
from cm3_model.kv_cache import Append, AppendOne, KVCache, Layers

COMPILED_LENGTHS = 256
"""A cache for a compiled step has a multiple of so many slots."""


class Decoder(nn.Module):
    """A decoder-only transformer over the joint ids of text and image codes."""

    def __init__(self, config: DecoderConfig, generator: torch.Generator | None = None) -> None:
        """Build and initialise; `generator` draws the start values (default: torch's own)."""
        super().__init__()
        self.config = config
        self.token_embedding = empty_embedding(config.vocab_size, config.width)
        self.position_embedding = (
            empty_embedding(config.max_length, config.width)
            if config.positions == "learned"
            else None
        )
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.num_layers))
        self.norm = Norm(config)
        self.output = (
            None
            if config.tie_embeddings
            else nn.Linear(config.width, config.vocab_size, bias=False)
        )
        self.activation_checkpointing = False
        """In training, keep each block's input only and compute the block again for backward."""
        self.compiled_step: Callable[[Tensor, Layers, Tensor, int], Tensor] | None = None
        """What `compile_decoding` puts in the place of `step`."""
        self.initialise(generator)

    @torch.no_grad()
    def initialise(self, generator: torch.Generator | None = None) -> None:
        """Draw the start values of 2.3: truncated normals cut at three standard deviations.

        The paper sets "output layers" to 0. With tied embeddings the layer that makes the logits
        cannot be meant, for then nothing would ever learn; what is left are the projections that
        write into the residual stream. Every block starts as the identity.
        """
        for name, weight in self.named_parameters():
            std = self.config.init_std
            if name == "position_embedding.weight":
                std = self.config.position_init_std
            if name.endswith(("attention.out.weight", "mlp.down.weight", "norm.bias")):
                nn.init.zeros_(weight)
            elif name.endswith("norm.weight"):
                nn.init.ones_(weight)
            else:
                nn.init.trunc_normal_(weight, 0.0, std, -3 * std, 3 * std, generator=generator)

    def forward(self, input_ids: Tensor, documents: Tensor | None = None) -> Tensor:
        """Logits (B, T, V) of the next token after every one of `input_ids` (B, T)."""
        if documents is None:
            return self.head(self.hidden(input_ids))
        return self.head(self.hidden(input_ids, documents))

    def hidden(self, input_ids: Tensor, documents: Tensor | None = None) -> Tensor:
        """Normed last states (B, T, D) of `input_ids` (B, T); causal, no cache.

        Args:
            input_ids: (B, T) ids.
            documents: (B, T) numbers. Neighbours with one number are a document of its own: it
                sees nothing of the others, and its positions start at 0. So documents can be
                packed into a row, and padding on either side is one more document.
        """
        self._check_ids(input_ids)
        if input_ids.shape[1] > self.config.max_length:
            raise ValueError(
                f"input_ids: wanted at most max_length = {self.config.max_length} tokens, "
                f"got {input_ids.shape[1]}"
            )
        positions = torch.arange(input_ids.shape[1], device=input_ids.device)
        if documents is None:
            return self._run(input_ids, positions)
        if documents.shape != input_ids.shape:
            raise ValueError(
                f"documents: wanted one number per id {tuple(input_ids.shape)}, "
                f"got {tuple(documents.shape)}"
            )
        first = document_starts(documents)  # (B, T)
        return self._run(input_ids, positions - first, visible=document_mask(first))

    def head(self, hidden: Tensor) -> Tensor:
        """Logits (..., V) of last states (..., D)."""
        if self.output is None:
            return F.linear(hidden, self.token_embedding.weight)
        return self.output(hidden)

    @property
    def head_weight(self) -> Tensor:
        """The matrix (V, D) of `head`."""
        return (self.token_embedding if self.output is None else self.output).weight

    def make_cache(self, batch_size: int, length: int) -> KVCache:
        """An empty cache for `batch_size` rows of up to `length` tokens each.

        If the step is compiled, `length` is rounded up to a multiple of `COMPILED_LENGTHS`.
        """
        for name, value in (("batch_size", batch_size), ("length", length)):
            if value < 1:
                raise ValueError(f"{name}: wanted at least 1, got {value}")
        if length > self.config.max_length:
            raise ValueError(
                f"length: wanted at most max_length = {self.config.max_length}, got {length}"
            )
        weight = self.token_embedding.weight
        if self.compiled_step is not None:
            # Every length is one more compilation, so there are few.
            length = min(-(-length // COMPILED_LENGTHS) * COMPILED_LENGTHS, self.config.max_length)
        return KVCache(
            num_layers=self.config.num_layers,
            batch_size=batch_size,
            num_heads=self.config.kv_heads,
            length=length,
            head_width=self.config.head_width,
            device=weight.device,
            dtype=weight.dtype,
        )

    def prefill(self, input_ids: Tensor, lengths: Tensor, cache: KVCache) -> Tensor:
        """Read right-padded prompts, or more of them, into the cache.

        Args:
            input_ids: (B, T) ids; row b counts up to `lengths[b]`, what follows is padding
                (any valid id).
            lengths: (B,) numbers of tokens, 1 to T.
            cache: from `make_cache`; if it holds tokens already, the new ones follow them.

        Returns:
            Logits (B, V) after each row's last token.

        Raises:
            ValueError: if shapes, ids or lengths do not fit, or a prompt is too long.
        """
        self._check_ids(input_ids)
        batch_size, width = input_ids.shape
        lengths = lengths.to(device=input_ids.device, dtype=torch.long)
        if batch_size != cache.batch_size:
            raise ValueError(f"input_ids: wanted {cache.batch_size} rows, got {batch_size}")
        if lengths.shape != (batch_size,) or not bool(((lengths >= 1) & (lengths <= width)).all()):
            raise ValueError(
                f"lengths: wanted {batch_size} numbers from 1 to {width}, got {lengths.tolist()}"
            )
        new = cache.append(lengths, width)
        hidden = self._run(input_ids, new.positions, new)  # (B, T, D)
        new.commit()
        return self.head(hidden[torch.arange(batch_size, device=hidden.device), lengths - 1])

    def decode_one_token(self, input_ids: Tensor, cache: KVCache) -> Tensor:
        """Append one id per row (B,); logits (B, V) after it. Ids are trusted, for speed."""
        end = cache.append_one()
        if self.compiled_step is None:
            logits = self.step(input_ids, cache.layers, cache.lengths, end)
        else:  # to the last slot, for what grows cannot be compiled once
            logits = self.compiled_step(input_ids, cache.layers, cache.lengths, cache.capacity)
        cache.count_one()
        return logits

    def step(self, input_ids: Tensor, layers: Layers, lengths: Tensor, end: int) -> Tensor:
        """Logits (B, V) after ids (B,) behind `lengths` (B,); a function of tensors alone.

        Writes to the `layers` of a cache and attends to their first `end` slots.
        """
        new = AppendOne(layers, lengths, end)
        return self.head(self._run(input_ids[:, None], new.positions, new)[:, 0])

    def _run(
        self,
        input_ids: Tensor,
        positions: Tensor,
        new: Append | AppendOne | None = None,
        visible: Visible = None,
    ) -> Tensor:
        """Normed last states (B, T, D); `positions` is (T,) or (B, T)."""
        x = self.token_embedding(input_ids)  # (B, T, D)
        rotation = None
        if self.position_embedding is None:
            width, theta = self.config.head_width, self.config.rotary_theta
            rotation = rotary_angles(positions, width, theta)
        else:
            # Padding may lie behind the context; nothing reads it, any position will do.
            positions = positions.clamp(max=self.config.max_length - 1)
            x = x + self.position_embedding(positions)
        if new is not None:
            visible = new.visible
        if isinstance(visible, Tensor):
            visible = additive(visible, x.dtype)
        again = self.activation_checkpointing and self.training and new is None
        for block in self.blocks:
            if again:
                x = checkpoint(block, x, rotation, None, visible, use_reentrant=False)
            else:
                x = block(x, rotation, new, visible)
        return self.norm(x)

    def _check_ids(self, input_ids: Tensor) -> None:
        if input_ids.ndim != 2 or input_ids.numel() == 0:
            raise ValueError(f"input_ids: wanted (B, T) ids, got {tuple(input_ids.shape)}")
        # On an accelerator this would make every training step wait.
        if input_ids.device.type != "cpu" or torch.compiler.is_compiling():
            return
        low, high = (int(bound) for bound in input_ids.aminmax())
        if low < 0 or high >= self.config.vocab_size:
            raise ValueError(
                f"input_ids: wanted ids from 0 to {self.config.vocab_size - 1}, "
                f"got {low if low < 0 else high}"
            )


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

    def forward(
        self,
        x: Tensor,
        rotation: Tensor | None,
        new: Append | AppendOne | None,
        visible: Visible = None,
    ) -> Tensor:
        """(B, T, D) to (B, T, D)."""
        if self.norm_first:
            x = x + self.attention(self.attention_norm(x), rotation, new, visible)
            return x + self.mlp(self.mlp_norm(x))
        x = x + self.attention_norm(self.attention(x, rotation, new, visible))
        return x + self.mlp_norm(self.mlp(x))


class Norm(nn.Module):
    """Over the last dimension: mean 0 and variance 1 with nothing learnt (2.3), or RMS norm."""

    def __init__(self, config: DecoderConfig) -> None:
        """Build the kind that the config asks for."""
        super().__init__()
        self.eps = config.norm_eps
        self.weight = nn.Parameter(torch.ones(config.width)) if config.norm == "rms" else None

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) to (..., D)."""
        if self.weight is None:
            return F.layer_norm(x, x.shape[-1:], eps=self.eps)
        return F.rms_norm(x, x.shape[-1:], self.weight, self.eps)


class HeadNorm(nn.Module):
    """What is learnt of `head_norm`: a scale and a shift of every head's channels, or nothing."""

    def __init__(self, config: DecoderConfig, num_heads: int) -> None:
        """Build for `num_heads` heads."""
        super().__init__()
        shape = (num_heads, config.head_width)
        self.eps = config.norm_eps
        affine = config.qk_norm_affine
        self.weight = nn.Parameter(torch.ones(shape)) if affine else None
        self.bias = nn.Parameter(torch.zeros(shape)) if affine else None


def head_norm(x: Tensor, *norms: HeadNorm) -> Tensor:
    """Layer norm of every head's channels (B, H, T, W); `norms` for the first heads and so on."""
    x = F.layer_norm(x, x.shape[-1:], eps=norms[0].eps)
    weights = tuple(norm.weight for norm in norms if norm.weight is not None)
    biases = tuple(norm.bias for norm in norms if norm.bias is not None)
    if not weights:
        return x
    return torch.addcmul(torch.cat(biases)[:, None], x, torch.cat(weights)[:, None])


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
        new: Append | AppendOne | None,
        visible: Visible = None,
    ) -> Tensor:
        """(B, T, D) to (B, T, D); with `new`, also to what the cache holds."""
        heads = self.qkv(x).unflatten(-1, (-1, self.head_width)).transpose(1, 2)
        # What happens to queries and keys alike happens to both at once.
        turned, value = heads.split((heads.shape[1] - self.kv_heads, self.kv_heads), dim=1)
        if self.query_norm is not None and self.key_norm is not None:
            turned = head_norm(turned, self.query_norm, self.key_norm)
        if rotation is not None:
            turned = rotate(turned, rotation)
        query, key = turned.split((turned.shape[1] - self.kv_heads, self.kv_heads), dim=1)
        if new is not None:
            key, value = new.write(self.layer, key, value)
        mixed = attend(query, key, value, visible)  # (B, H, T, W)
        return self.out(mixed.transpose(1, 2).flatten(2))  # (B, T, D)


class MLP(nn.Module):
    """Two matrices with a non-linearity between them; "swiglu" stacks a gate on the first one."""

    def __init__(self, config: DecoderConfig) -> None:
        """Build the MLP."""
        super().__init__()
        self.gated = config.activation == "swiglu"
        rows = (2 if self.gated else 1) * config.mlp_hidden
        self.up = nn.Linear(config.width, rows, bias=False)
        self.activation = {"gelu": F.gelu, "relu": F.relu, "swiglu": F.silu}[config.activation]
        self.down = nn.Linear(config.mlp_hidden, config.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) to (B, T, D)."""
        if self.gated:
            gate, up = self.up(x).chunk(2, -1)  # 2 x (B, T, F)
            return self.down(self.activation(gate) * up)
        return self.down(self.activation(self.up(x)))


def empty_embedding(num_rows: int, width: int) -> nn.Embedding:
    """Make an embedding that draws no start values; `nn.Embedding` always does, slowly on meta."""
    return nn.Embedding.from_pretrained(torch.empty(num_rows, width), freeze=False)
