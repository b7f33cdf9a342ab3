"""The decode step through `torch.compile`: one graph, whatever the number of tokens so far.

Takes a decoder, gives the same decoder with a compiled `decode_one_token`. A step then attends to
all slots of the cache under a mask, so its shapes do not change from token to token; and it has a
power of two of rows, so they seldom change when rows come and go. On a CUDA device mode
"reduce-overhead" replays the whole step as one CUDA graph, for which the cache's memory stays where
it is, and is used again by the caches that follow.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from cm3_model.memory_pool import MemoryPool
from cm3_model.shared_prefixes import Layers
from cm3_model.transformer import Decoder

MOST_GRAPHS = 4096
"""Graphs of decode steps, over all decoders of a process."""


def compile_decoding(model: Decoder, **options: Any) -> Decoder:
    """Compile the decode step of a decoder, in place; make its caches afterwards.

    The first pass of every new batch size (a power of two), cache length (a multiple of 256) and
    number of ids of a row (1, or a power of two where it looks ahead) then takes minutes on a small
    CPU, where eager steps are the better choice for a few pictures.

    Args:
        model: A decoder in eval mode; quantize it before, not after.
        options: Options of `torch.compile`, such as `mode="reduce-overhead"` on a CUDA device.
    """
    # The decoder is an argument, so that a copy runs its own weights.
    compiled = torch.compile(Decoder.step, fullgraph=True, dynamic=False, **options)
    model.compiled_step = CompiledStep(compiled)
    return model


class CompiledStep:
    """A compiled `Decoder.step`, which copies of a decoder share and pickles leave out."""

    def __init__(self, compiled: Callable[..., Tensor]) -> None:
        """Take the compiled function."""
        self.compiled = compiled
        self.pool = MemoryPool()
        """Memory for the caches of compiled steps."""
        # Every batch size and cache length is a graph of its own; PyTorch stops at eight.
        self.more_shapes = torch._dynamo.config.patch(
            recompile_limit=MOST_GRAPHS, accumulated_recompile_limit=MOST_GRAPHS
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> CompiledStep:
        """Return the same."""
        return self

    def __reduce__(self) -> tuple[type[None], tuple[()]]:
        """Come back from a pickle as None: what is compiled stays in its process."""
        return type(None), ()

    def __call__(
        self,
        decoder: Decoder,
        input_ids: Tensor,
        layers: Layers,
        places: Tensor,
        lengths: Tensor,
        end: int,
    ) -> Tensor:
        """Run a step as `Decoder.step` does."""
        if input_ids.device.type == "cuda":
            # A graph replays at fixed addresses: declare the cache's, copy the output.
            for memory in (places, *(part for layer in layers for part in layer)):
                torch._dynamo.mark_static_address(memory)
            torch.compiler.cudagraph_mark_step_begin()
            with self.more_shapes:
                return self.compiled(decoder, input_ids, layers, places, lengths, end).clone()
        with self.more_shapes:
            return self.compiled(decoder, input_ids, layers, places, lengths, end)
