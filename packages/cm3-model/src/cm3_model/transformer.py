"""The CM3Leon decoder, read from top to bottom: ids (B, T) in, logits (B, T, V) out.

Decoder-only as OPT and GPT-3, but without biases, dropout and learnable layer norms (CM3Leon 2.3,
arXiv 2309.02591). Norms stand before each sublayer and once before the logits. The config picks
other parts: with RMS norm, rotary positions, SwiGLU and query/key norm this is Chameleon
(arXiv 2405.09818).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cm3_model.appending import Append, AppendEvenly
from cm3_model.attention import (
    Visible,
    additive,
    document_mask,
    document_starts,
    picture_places,
    rotary_angles,
)
from cm3_model.block import Block, Checkpointing, Norm
from cm3_model.config import DecoderConfig
from cm3_model.kv_cache import KVCache
from cm3_model.shared_prefixes import Layers, SharedPrefixes

if TYPE_CHECKING:
    from cm3_model.compiled import CompiledStep
    from cm3_model.packing import PackedLinear

COMPILED_LENGTHS = 256
"""A cache for a compiled step has a multiple of this many slots."""


class Decoder(nn.Module):
    """A decoder-only transformer over the joint ids of text and image codes."""

    def __init__(self, config: DecoderConfig, generator: torch.Generator | None = None) -> None:
        """Build and initialise.

        Args:
            config: The shape.
            generator: Draws the start values; None takes torch's own.
        """
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
        self.compiled_step: CompiledStep | None = None
        """Replacement for `Decoder.step` that `compile_decoding` puts here."""
        self.packed_head: tuple[PackedLinear, ...] = ()
        """A tied output as `pack_weights` leaves it; no submodule, for its weight is the
        embedding's."""
        self.initialise(generator)

    @torch.no_grad()
    def initialise(self, generator: torch.Generator | None = None) -> None:
        """Draw the start values of 2.3: truncated normals cut at three standard deviations.

        The paper sets "output layers" to 0. With tied embeddings that cannot mean the layer that
        makes the logits, since nothing would ever learn. So it must mean the projections that write
        into the residual stream: every block starts as the identity.
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
        """Return logits (B, T, V) of the next token after each of `input_ids` (B, T)."""
        if documents is None:
            return self.head(self.hidden(input_ids))
        return self.head(self.hidden(input_ids, documents))

    def hidden(self, input_ids: Tensor, documents: Tensor | None = None) -> Tensor:
        """Return the normed last states (B, T, D) of `input_ids`; causal, no cache.

        Args:
            input_ids: Ids (B, T).
            documents: Numbers (B, T). Neighbours with the same number form a document: it sees
                nothing of the others, and its positions start at 0. So documents can be packed
                into a row, and padding on either side is one more document. It is the
                documents then that `max_length` bounds; this is not checked, for padding may be
                longer.

        Raises:
            ValueError: If shapes or ids do not fit, or there are more than `max_length` without
                documents.
        """
        self._check_ids(input_ids)
        if documents is None and input_ids.shape[1] > self.config.max_length:
            raise ValueError(
                f"input_ids: wanted at most max_length = {self.config.max_length} tokens, "
                f"got {input_ids.shape[1]}"
            )
        positions = torch.arange(input_ids.shape[1], device=input_ids.device)
        if documents is None:
            start = positions.new_zeros((1, 1))
            return self._run(input_ids, positions, functools.partial(picture_places, first=start))
        if documents.shape != input_ids.shape:
            raise ValueError(
                f"documents: wanted one number per id {tuple(input_ids.shape)}, "
                f"got {tuple(documents.shape)}"
            )
        first = document_starts(documents)  # (B, T)
        place = functools.partial(picture_places, first=first)
        return self._run(input_ids, positions - first, place, visible=document_mask(first))

    def head(self, hidden: Tensor) -> Tensor:
        """Return logits (..., V) of last states (..., D)."""
        if self.output is None:
            return F.linear(hidden, self.token_embedding.weight)
        return self.output(hidden)

    @property
    def activation_checkpointing(self) -> Checkpointing:
        """What is kept of each block for backward: see `cm3_model.block.Checkpointing`."""
        return cast(Block, self.blocks[0]).checkpointing

    @activation_checkpointing.setter
    def activation_checkpointing(self, mode: Checkpointing) -> None:
        if mode not in get_args(Checkpointing):
            wanted = get_args(Checkpointing)
            raise ValueError(f"activation_checkpointing: wanted one of {wanted}, got {mode!r}")
        for block in self.blocks:
            cast(Block, block).checkpointing = mode

    def compile_blocks(self, **options: Any) -> None:
        """Compile the blocks for training, in place; they share one compiled code.

        Drawing with a cache is for another instance, or for `torch.compiler.set_stance`.

        Args:
            options: Options of `torch.compile`.
        """
        for block in self.blocks:
            block.compile(**options)

    @property
    def head_weight(self) -> Tensor:
        """Matrix (V, D) of `head`."""
        return (self.token_embedding if self.output is None else self.output).weight

    def make_cache(self, batch_size: int, length: int) -> KVCache:
        """Make an empty cache for `batch_size` rows of up to `length` tokens each.

        If the step is compiled, `length` is rounded up to a multiple of `COMPILED_LENGTHS`.

        Raises:
            ValueError: If either is below 1, or `length` is above `max_length`.
        """
        for name, value in (("batch_size", batch_size), ("length", length)):
            if value < 1:
                raise ValueError(f"{name}: wanted at least 1, got {value}")
        if length > self.config.max_length:
            raise ValueError(
                f"length: wanted at most max_length = {self.config.max_length}, got {length}"
            )
        weight = self.token_embedding.weight
        on_cpu = weight.device.type == "cpu"
        if self.compiled_step is not None:
            # Every length costs one more compilation, so there are few.
            length = min(-(-length // COMPILED_LENGTHS) * COMPILED_LENGTHS, self.config.max_length)
        return KVCache(
            num_layers=self.config.num_layers,
            batch_size=batch_size,
            num_heads=self.config.kv_heads,
            length=length,
            head_width=self.config.head_width,
            device=weight.device,
            # a CPU attends to float32 faster than to shorter formats, and more exactly
            dtype=torch.float32 if on_cpu and weight.dtype.itemsize < 4 else weight.dtype,
            # a compiled step takes no memory of other shapes; on other devices it is not measured
            shares_prefixes=self.compiled_step is None and on_cpu,
            pool=None if self.compiled_step is None else self.compiled_step.pool,
        )

    def prefill(self, input_ids: Tensor, lengths: Tensor, cache: KVCache) -> Tensor:
        """Read right-padded prompts, or more of them, into the cache.

        Args:
            input_ids: Ids (B, T); row b counts up to `lengths[b]`, then padding follows (any
                valid id).
            lengths: Numbers of tokens (B,), 1 to T.
            cache: The cache from `make_cache`; if it holds tokens, the new ones follow them.

        Returns:
            Logits (B, V) after each row's last token.

        Raises:
            ValueError: If shapes, ids or lengths do not fit, or a prompt is too long.
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
        hidden = self._run(input_ids, new.positions, new.place, new)  # (B, T, D)
        new.commit()
        return self.head(hidden[torch.arange(batch_size, device=hidden.device), lengths - 1])

    def decode_one_token(self, input_ids: Tensor, cache: KVCache) -> Tensor:
        """Append one id per row (B,), unchecked for speed; return the logits (B, V) after it."""
        return self.decode_span(input_ids, cache, 0, self.config.vocab_size)

    def decode_span(self, input_ids: Tensor, cache: KVCache, start: int, stop: int) -> Tensor:
        """Append one id per row (B,) as `decode_one_token`; return logits of `start` to `stop - 1`.

        With a large vocabulary the others would take much of a step. A compiled step computes them
        all the same, since every span would be another graph.
        """
        return self.decode_several(input_ids[:, None], cache, start, stop)[:, 0]

    def decode_several(self, input_ids: Tensor, cache: KVCache, start: int, stop: int) -> Tensor:
        """Append ids (B, T) to all rows; return logits (B, T, stop - start) after each of them.

        As `decode_span`, for ids some of which may turn out wrong, for `KVCache.forget` to take
        back. A compiled step is compiled once for every T.
        """
        count = input_ids.shape[1]
        end = cache.append_evenly(count)
        if self.compiled_step is None:
            memory = (cache.layers, cache.places, cache.lengths)
            logits = self.step(input_ids, *memory, end, cache.shared, (start, stop))
        else:  # all rows to the last slot: shapes that change cannot be compiled once
            layers, places, lengths = cache.all_rows()
            rows, behind = len(input_ids), len(lengths) - len(input_ids)
            ids = F.pad(input_ids, (0, 0, 0, behind)) if behind else input_ids.contiguous()
            logits = self.compiled_step(self, ids, layers, places, lengths, cache.capacity)
            logits = logits[:rows, :, start:stop]
        cache.count_new(count)
        return logits

    def step(
        self,
        input_ids: Tensor,
        layers: Layers,
        places: Tensor,
        lengths: Tensor,
        end: int,
        shared: SharedPrefixes | None = None,
        span: tuple[int, int] | None = None,
    ) -> Tensor:
        """Return logits (B, T, V), or of a span of ids, after ids (B, T) behind `lengths` (B,).

        Write to the `layers` and `places` of a cache and attend to their first `end` slots, and to
        what rows share. Compiled, a step takes tensors alone, nothing shared and no span.
        """
        new = AppendEvenly(layers, places, lengths, input_ids.shape[1], end, shared)
        hidden = self._run(input_ids, new.positions, new.place, new)
        if span is None or span == (0, self.config.vocab_size):
            return self.head(hidden)
        start, stop = span
        if self.output is None and self.packed_head:
            return self.packed_head[0].span(hidden, start, stop)
        if self.output is None or type(self.output) is nn.Linear:
            return F.linear(hidden, self.head_weight[start:stop])
        if hasattr(self.output, "span"):
            return self.output.span(hidden, start, stop)  # of a matrix that was packed
        return self.head(hidden)[..., start:stop]  # adapters, and what else may stand there

    def _run(
        self,
        input_ids: Tensor,
        positions: Tensor,
        place: Callable[[Tensor], Tensor],
        new: Append | AppendEvenly | None = None,
        visible: Visible = None,
    ) -> Tensor:
        """Return the normed last states (B, T, D) of ids at `positions`, (T,) or (B, T).

        `place` gives the places in pictures (B, T) of all ids, told which are codes (B, T).
        """
        x = self.token_embedding(input_ids)  # (B, T, D)
        rotation = None
        if self.position_embedding is None:
            width, theta = self.config.head_width, self.config.rotary_theta
            places = None
            if self.config.image_ids is not None:
                start, stop = self.config.image_ids
                places = place((input_ids >= start) & (input_ids < stop))
            rotation = rotary_angles(positions, width, theta, places)
        else:
            # Padding may lie beyond the context; nothing reads it, so any position will do.
            positions = positions.clamp(max=self.config.max_length - 1)
            x = x + self.position_embedding(positions)
        if new is not None:
            visible = new.visible
        if isinstance(visible, Tensor):
            visible = additive(visible, x.dtype if new is None else new.dtype)
        for block in self.blocks:
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


def empty_embedding(num_rows: int, width: int) -> nn.Embedding:
    """Make an embedding that draws no start values; `nn.Embedding` always does, slowly on meta."""
    return nn.Embedding.from_pretrained(torch.empty(num_rows, width), freeze=False)
