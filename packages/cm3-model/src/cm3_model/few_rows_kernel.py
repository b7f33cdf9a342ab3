"""The Triton kernel behind `few_rows`, and the operator that `torch.compile` looks into."""

# Triton's language is no Python that a type checker knows.
# pyright: reportGeneralTypeIssues=false, reportArgumentType=false

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl
from torch import Tensor
from torch.library import triton_op, wrap_triton


@triton.jit
def multiply(  # type: ignore[no-untyped-def]
    x,  # (R, K)
    weight,  # (N, K)
    scale,  # (N,), not read unless SCALED
    out,  # (R, N)
    rows,
    size,  # N
    width,  # K, a multiple of BLOCK_K
    ROWS: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    STAGES: tl.constexpr,
    SCALED: tl.constexpr,
    BY_TENSOR_CORES: tl.constexpr,
):
    """Compute BLOCK_N columns of the output for all rows, up to ROWS."""
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    k = tl.arange(0, BLOCK_K)
    r = tl.arange(0, ROWS)
    inside = n < size
    weights = weight + tl.where(inside, n, 0)[:, None].to(tl.int64) * width + k[None]
    if BY_TENSOR_CORES:
        inputs = x + r[None] * width + k[:, None]
        total = tl.zeros((BLOCK_N, ROWS), tl.float32)
        for at in tl.range(0, width, BLOCK_K, num_stages=STAGES):
            tile = tl.load(weights + at, eviction_policy="evict_first")
            part = tl.load(inputs + at, mask=r[None] < rows, other=0.0)
            total = tl.dot(tile.to(part.dtype), part, total)
    else:
        inputs = x + r[:, None] * width + k[None]
        sums = tl.zeros((ROWS, BLOCK_N, BLOCK_K), tl.float32)
        for at in tl.range(0, width, BLOCK_K, num_stages=STAGES):
            tile = tl.load(weights + at, eviction_policy="evict_first").to(tl.float32)
            part = tl.load(inputs + at, mask=r[:, None] < rows, other=0.0).to(tl.float32)
            sums += tile[None] * part[:, None]
        total = tl.trans(tl.sum(sums, 2))
    if SCALED:
        total *= tl.load(scale + n, mask=inside, other=0.0)[:, None]
    places = out + r[None] * size + n[:, None]
    tl.store(places, total.to(out.dtype.element_ty), mask=inside[:, None] & (r[None] < rows))


def launch(kernel: Any, x: Tensor, weight: Tensor, scale: Tensor | None, out: Tensor) -> None:
    """Fill `out` (R, N) by inputs (R, K) and weights (N, K), K a multiple of 64.

    The blocks were the fastest, or within 3 % of it, of a dozen for the four matrices of the 7B
    decoder on an H100.
    """
    rows, width = x.shape
    by_tensor_cores = rows > 4
    block_n, block_k, stages = (32, 128, 5) if by_tensor_cores else (8, 512, 3)
    if 2 < rows <= 4:
        block_n = 4  # the sums of as many rows fill the registers
    least = 16 if by_tensor_cores else 1
    kernel[(triton.cdiv(len(weight), block_n),)](
        x,
        weight,
        weight if scale is None else scale,
        out,
        rows,
        len(weight),
        width,
        ROWS=max(least, triton.next_power_of_2(rows)),
        BLOCK_N=block_n,
        BLOCK_K=min(block_k, width & -width),
        STAGES=stages,
        SCALED=scale is not None,
        BY_TENSOR_CORES=by_tensor_cores,
        num_warps=4,
    )


@triton_op("cm3_model::few_rows", mutates_args=())
def few_rows(x: Tensor, weight: Tensor, scale: Tensor | None) -> Tensor:
    """Return `x @ weight.T * scale` (R, N) of inputs (R, K) and weights (N, K)."""
    out = x.new_empty((len(x), len(weight)))
    launch(wrap_triton(multiply), x, weight, scale, out)
    return out
