"""Revival of codes that nobody chooses: it keeps a codebook of any kind from collapsing."""

from __future__ import annotations

import torch
from torch import Tensor, distributed

from cm3_imagetok.gumbel import GumbelQuantizer
from cm3_imagetok.quantize import NearestQuantizer
from cm3_imagetok.ranks import num_ranks, sum_over_ranks

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

    Best called after the optimizer's step, which would move the new vectors at once. Processes that
    train together (`torch.distributed`) must all call it: use is averaged over them, and all take
    the vectors of the first.

    Args:
        quantizer: The quantizer, changed in place.
        z: (B, C, h, w) grid from the encoder, before quantization, without gradient.
        usage: (num_codes,) recent use of each code, in any unit.
        min_usage: Codes used less than this are moved.
        generator: Draws the vectors.

    Returns:
        The number of codes moved.
    """
    usage = sum_over_ranks(usage.detach().clone()) / num_ranks()
    dead = torch.nonzero(usage < min_usage).flatten()
    if not len(dead):
        return 0
    vectors = z.permute(0, 2, 3, 1).reshape(-1, z.shape[1])
    order = torch.randperm(len(vectors), generator=generator)[: len(dead)].to(vectors.device)
    drawn = vectors[order].float()
    if num_ranks() > 1:
        count = torch.tensor(len(drawn), device=drawn.device)
        distributed.all_reduce(count, distributed.ReduceOp.MIN)  # the last batch may be short
        drawn = drawn[: int(count)].contiguous()
        distributed.broadcast(drawn, 0)
    quantizer.set_codes(dead[: len(drawn)], drawn)
    return len(drawn)
