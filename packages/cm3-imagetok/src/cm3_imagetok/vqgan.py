"""VQGAN: a convolutional auto-encoder with a codebook in the middle.

Esser et al., arXiv 2012.09841. Pictures (B, 3, H, W) in [-1, 1] to codes (B, H / f, W / f), with
`f = VQGANConfig.downsampling`, and back. Depending on its config, one class is CM3Leon's tokenizer
(256 x 256 pixels to 32 x 32 codes of 8192; paper section 2.1) or one of its published relatives.
Parameter names are taming-transformers', so their checkpoints fit.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor, nn
from torch.func import functional_call

from cm3_imagetok.config import VQGANConfig
from cm3_imagetok.gumbel import GumbelQuantizer
from cm3_imagetok.layers import Decoder, Encoder
from cm3_imagetok.quantize import EMAQuantizer, NearestQuantizer, Quantized
from cm3_imagetok.revival import Quantizer

SLACK = 1.01
"""How far from 0 pixels may be: 1, and some rounding."""


def _quantizer(config: VQGANConfig) -> Quantizer:
    if config.quantizer == "ema":
        return EMAQuantizer(config.num_codes, config.embed_dim, config.beta)
    if config.quantizer == "gumbel":
        return GumbelQuantizer(config.num_codes, config.embed_dim, config.kl_weight)
    normalise = config.quantizer == "normalised"
    return NearestQuantizer(config.num_codes, config.embed_dim, config.beta, normalise)


def _run(part: nn.Module, x: Tensor) -> Tensor:
    """Call a part; run bfloat16 weights in float32 on a CPU that only emulates bfloat16.

    Emulated convolutions are a hundred times slower. The result is then float32.
    """
    if x.device.type != "cpu" or torch.cpu._is_avx512_bf16_supported():
        return part(x)
    if all(parameter.dtype != torch.bfloat16 for parameter in part.parameters()):
        return part(x)
    weights = {name: parameter.float() for name, parameter in part.named_parameters()}
    return functional_call(part, weights, x.float())


def _check_tensor(name: str, value: object) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}: wanted a torch.Tensor, got {type(value).__name__}")


class VQGAN(nn.Module):
    """Image tokenizer; implements `cm3_imagetok.interface.ImageTokenizer`.

    Args:
        config: The shape.
    """

    def __init__(self, config: VQGANConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config) if config.has_decoder else None
        self.quant_conv = nn.Conv2d(config.z_channels, config.embed_dim, 1)
        self.post_quant_conv = nn.Conv2d(config.embed_dim, config.z_channels, 1)
        self.quantize = _quantizer(config)
        self.to(memory_format=torch.channels_last)  # convolutions are a third faster

    @property
    def num_codes(self) -> int:
        """Size of the codebook."""
        return self.config.num_codes

    @property
    def downsampling(self) -> int:
        """Pixels per code along one side."""
        return self.config.downsampling

    @property
    def codebook_sha256(self) -> str:
        """Hex digest of the code vectors, which tells two codebooks of one size apart."""
        vectors = self.quantize.codebook.detach().float().cpu().contiguous().numpy()
        return hashlib.sha256(vectors.astype("<f4").tobytes()).hexdigest()

    def latent(self, images: Tensor) -> Tensor:
        """Return the grid before quantization, (B, 3, H, W) -> (B, embed_dim, H / f, W / f)."""
        _check_tensor("images", images)
        if (
            images.ndim != 4
            or images.shape[1] != 3
            or any(s % self.downsampling for s in images.shape[2:])
            or not images.numel()
        ):
            raise ValueError(
                f"images: wanted (B, 3, H, W) with H and W multiples of {self.downsampling} and "
                f"nothing 0, got {tuple(images.shape)}"
            )
        if not images.is_floating_point():
            raise ValueError(f"images: wanted floating point in [-1, 1], got {images.dtype}")
        images = images.to(self.quant_conv.weight.dtype, memory_format=torch.channels_last)
        return _run(self.quant_conv, _run(self.encoder, images))

    def render(self, grid: Tensor) -> Tensor:
        """Return unclipped pictures of a quantized grid, (B, embed_dim, h, w) -> (B, 3, f h, f w).

        Raises:
            RuntimeError: The model has no decoder (`VQGANConfig.has_decoder`).
        """
        if self.decoder is None:
            raise RuntimeError(
                "this VQGAN has no decoder: its weights came from an encoder-only checkpoint; "
                "it gives codes, not pictures"
            )
        grid = grid.to(self.post_quant_conv.weight.dtype, memory_format=torch.channels_last)
        return _run(self.decoder, _run(self.post_quant_conv, grid))

    def forward(self, images: Tensor) -> tuple[Tensor, Quantized]:
        """Return the unclipped reconstruction (B, 3, H, W) and the quantizer's output."""
        quantized = self.quantize(self.latent(images))
        return self.render(quantized.grid), quantized

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Return the codes (B, H / f, W / f) of pictures (B, 3, H, W) in [-1, 1].

        Raises:
            TypeError: They are no tensor.
            ValueError: They have another shape, are no floating point, or leave the range.
        """
        _check_tensor("images", images)
        if images.numel() and images.is_floating_point() and not images.is_meta:
            low, high = (float(bound) for bound in images.aminmax())
            # a rounding beyond 1 is no other range; NaN is in none
            if not -SLACK <= low <= high <= SLACK:
                raise ValueError(f"images: wanted values in [-1, 1], got {low:g} to {high:g}")
        return self.quantize.encode(self.latent(images))

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """Return the pictures (B, 3, f h, f w) in [-1, 1] of codes (B, h, w) of any integers."""
        _check_tensor("codes", codes)
        whole = not (codes.is_floating_point() or codes.is_complex() or codes.dtype == torch.bool)
        if codes.ndim != 3 or not whole:
            raise ValueError(
                f"codes: wanted integers of shape (B, h, w), got {codes.dtype} {tuple(codes.shape)}"
            )
        codes = codes.long()  # torch compares and looks up no uint16, the shards' own type
        if codes.numel() and not (0 <= int(codes.min()) and int(codes.max()) < self.num_codes):
            raise ValueError(
                f"codes: wanted values in [0, {self.num_codes}), "
                f"got {int(codes.min())} to {int(codes.max())}"
            )
        return self.render(self.quantize.decode(codes)).clamp(-1, 1)
