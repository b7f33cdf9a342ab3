"""Weights laid out for a fixed number of rows: decoding a batch in float32 on an Intel-like CPU.

Takes a decoder, gives the same decoder. A matrix product with few rows spends its time on reading
the weights and on copying them into the order that the arithmetic wants; MKL can keep that copy.
It costs the weights' memory once more and pays off from about 4 rows on; guidance makes two rows of
one prompt.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cm3_model.transformer import Decoder


def can_pack() -> bool:
    """Whether this build of PyTorch has MKL's packed matrices."""
    return torch.backends.mkl.is_available() and hasattr(torch.ops.mkl, "_mkl_linear")


class PackedLinear(nn.Module):
    """A linear layer without bias, fast for inputs of `rows` rows, right for all; not trainable."""

    def __init__(self, linear: nn.Linear, rows: int) -> None:
        """Pack `linear.weight` (out, in), float32 on the CPU."""
        super().__init__()
        self.rows = rows
        self.weight = linear.weight.requires_grad_(False)
        self._packed = torch.ops.mkl._mkl_reorder_linear_weight(self.weight.detach(), rows)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) to (..., out)."""
        return torch.ops.mkl._mkl_linear(x, self._packed, self.weight, None, self.rows)


def pack_weights(model: Decoder, rows: int) -> Decoder:
    """Pack the matrices for decode steps of `rows` rows, in place; gives the decoder.

    A tied output stays as it is.

    Args:
        model: float32 on the CPU; in eval mode afterwards. Saving it stays possible.
        rows: of the cache: prompts times streams.

    Raises:
        ValueError: if the decoder is elsewhere or in another dtype, or `rows` is below 1.
        RuntimeError: if `can_pack()` is false.
    """
    weight = model.token_embedding.weight
    if rows < 1:
        raise ValueError(f"rows: wanted at least 1, got {rows}")
    if weight.device.type != "cpu" or weight.dtype != torch.float32:
        raise ValueError(f"model: wanted float32 on a CPU, got {weight.dtype} on {weight.device}")
    if not can_pack():
        raise RuntimeError("pack_weights: wanted a PyTorch with MKL, got one without")
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Linear):
                setattr(module, name, PackedLinear(child, rows))
    return model.requires_grad_(False).eval()
