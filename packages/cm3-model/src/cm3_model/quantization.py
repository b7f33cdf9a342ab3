"""int8 weights: a quarter of float32's memory, half of bfloat16's, for decoding.

Every matrix of the blocks is kept as whole numbers from -127 to 127 with one scale per row; the
arithmetic stays in the dtype of the inputs. The paper times its 7B model this way (B: 9.1 s per
picture against 11.8 s).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from cm3_model.few_rows import multiply
from cm3_model.packing import AnyLinear
from cm3_model.transformer import Decoder


class Int8Linear(nn.Module):
    """A linear layer without bias whose weights are int8; no gradients reach them."""

    weight: Tensor
    scale: Tensor

    def __init__(self, linear: AnyLinear) -> None:
        """Round `linear.weight` (out, in); each row's largest magnitude becomes 127."""
        super().__init__()
        rows = linear.weight.detach().float()
        scale = rows.abs().amax(1).clamp(min=torch.finfo(torch.float32).tiny) / 127
        rounded = (rows / scale[:, None]).round().to(torch.int8)
        self.register_buffer("weight", rounded)  # (out, in)
        self.register_buffer("scale", scale)  # (out,)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Int8Linear:
        scale = self.scale
        super()._apply(fn, recurse)  # as of `to`
        # In float16 the scale of a row below 1e-5 would be 0.
        self.scale = scale.to(self.scale.device)
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., in) to (..., out)."""
        device = x.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
        return multiply(x.to(dtype), self.weight, self.scale)


def quantize_int8(model: Decoder) -> Decoder:
    """Replace the blocks' matrices by int8 ones, in place; return the decoder, in eval mode.

    The token embedding stays as it is, and with it a tied output. Save before: afterwards
    `save_decoder` and `export_chameleon` refuse.
    """
    for module in list(model.blocks.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, AnyLinear):
                setattr(module, name, Int8Linear(child))
    return model.requires_grad_(False).eval()
