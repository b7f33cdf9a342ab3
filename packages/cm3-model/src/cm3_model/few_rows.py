"""Matrix products of a few rows on a CUDA device, as decode steps make them: one Triton kernel.

Such a product takes as long as its weights take to be read. For two rows on an H100 cuBLAS reads
bfloat16 at 1.9 to 2.5 TB/s, and it knows no int8 weights: to write them out in bfloat16 first costs
five times their own bytes. The kernel reads every weight once, in its own format.

Triton is imported with the first product: it comes with PyTorch for CUDA alone.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

MOST_ROWS = 64
"""For more rows of int8 weights, a copy in the inputs' format costs little beside the product."""


def multiply(x: Tensor, weight: Tensor, scale: Tensor | None = None) -> Tensor:
    """Return `x @ weight.T * scale`, by the kernel where it can, summed in float32 there.

    Args:
        x: Inputs (..., in).
        weight: Weights (out, in), int8 or in the dtype of the inputs.
        scale: Scales (out,) in float32; None for none.

    Returns:
        (..., out) in the dtype of the inputs.
    """
    if _fits(x, weight):
        from cm3_model.few_rows_kernel import few_rows

        product = few_rows(x.reshape(-1, x.shape[-1]), weight, scale)
        return product.view(*x.shape[:-1], len(weight))
    if scale is None:
        return F.linear(x, weight)
    if x.dtype == torch.float16:  # where a product before the scale overflows
        return F.linear(x, (weight * scale[:, None]).to(x.dtype))
    return F.linear(x, weight.to(x.dtype)) * scale.to(x.dtype)


def _fits(x: Tensor, weight: Tensor) -> bool:
    """Tell whether the kernel takes these, and no gradient is asked for."""
    return (
        x.device.type == "cuda"
        and x.dtype in (torch.bfloat16, torch.float16)
        and weight.dtype in (torch.int8, x.dtype)
        and weight.is_contiguous()
        and x.numel() <= MOST_ROWS * x.shape[-1]
        and x.shape[-1] % 64 == 0
        and not (torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad))
    )
