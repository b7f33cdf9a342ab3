"""VQGAN: a convolutional auto-encoder with a codebook in the middle.

Esser et al., arXiv 2012.09841. Pictures (B, 3, H, W) in [-1, 1] to codes (B, H / f, W / f), with
`f = VQGANConfig.downsampling`, and back. One class, by config, is CM3Leon's tokenizer (256 x 256
pixels to 32 x 32 codes of 8192; paper section 2.1) and its published relatives. Parameter names are
taming-transformers', so their checkpoints fit.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cm3_imagetok.quantize import EMAQuantizer, NearestQuantizer, Quantized

QUANTIZERS = ("nearest", "normalised", "ema")


@dataclass(frozen=True, kw_only=True)
class VQGANConfig:
    """Shape of a VQGAN. The defaults are the paper's: f8, 8192 codes."""

    image_size: int = 256
    """Side in pixels that the model is trained at; other multiples of `downsampling` work too."""
    patch_size: int = 1
    """Pixels per side that are folded into channels before the first convolution. 1 is the
    published models' value; 4 spares a CPU the costly convolutions at full resolution."""
    channels: int = 128
    """Channels at the highest resolution."""
    channel_multipliers: tuple[int, ...] = (1, 1, 2, 4)
    """Channels of each level over `channels`, highest resolution first;

    between levels the side is halved.
    """
    num_res_blocks: int = 2
    """Residual blocks a level in the encoder; the decoder has one more."""
    attention_resolutions: tuple[int, ...] = ()
    """Sides (at `image_size`) of levels whose blocks are followed by self-attention."""
    mid_attention: bool = True
    """Self-attention at the lowest resolution."""
    norm_groups: int = 32
    """Groups of each GroupNorm."""
    z_channels: int = 256
    """Channels that leave the encoder."""
    embed_dim: int = 256
    """Channels of a code vector."""
    num_codes: int = 8192
    """Size of the codebook."""
    quantizer: str = "nearest"
    """"nearest" (L2), "normalised" (unit vectors) or "ema" (L2, codebook by moving averages)."""
    beta: float = 0.25
    """Weight of the commitment loss."""

    def __post_init__(self) -> None:
        """Refuse shapes that cannot be built, naming the parameter."""
        if self.quantizer not in QUANTIZERS:
            raise ValueError(f"quantizer: wanted one of {QUANTIZERS}, got {self.quantizer!r}")
        for name in (
            "image_size",
            "patch_size",
            "channels",
            "num_res_blocks",
            "z_channels",
            "embed_dim",
            "num_codes",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: wanted at least 1, got {getattr(self, name)}")
        for multiplier in self.channel_multipliers:
            if self.channels * multiplier % self.norm_groups:
                raise ValueError(
                    f"norm_groups: wanted a divisor of every level's channels, "
                    f"got {self.norm_groups} for {self.channels * multiplier} channels"
                )
        if self.image_size % self.downsampling:
            raise ValueError(
                f"image_size: wanted a multiple of {self.downsampling}, got {self.image_size}"
            )

    @property
    def downsampling(self) -> int:
        """Pixels per code along one side."""
        return self.patch_size * 2 ** (len(self.channel_multipliers) - 1)

    @property
    def grid_size(self) -> int:
        """Codes along one side of a picture of `image_size`."""
        return self.image_size // self.downsampling


def _norm(channels: int, config: VQGANConfig) -> nn.GroupNorm:
    return nn.GroupNorm(config.norm_groups, channels, eps=1e-6)


def _start_at_zero(convolution: nn.Conv2d) -> None:
    """Let a residual branch start as nothing: short trainings get much further."""
    nn.init.zeros_(convolution.weight)
    assert convolution.bias is not None
    nn.init.zeros_(convolution.bias)


class ResBlock(nn.Module):
    """Two 3 x 3 convolutions with a skip connection."""

    def __init__(self, channels_in: int, channels_out: int, config: VQGANConfig) -> None:
        super().__init__()
        self.norm1 = _norm(channels_in, config)
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.norm2 = _norm(channels_out, config)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1)
        _start_at_zero(self.conv2)
        if channels_in != channels_out:
            self.nin_shortcut = nn.Conv2d(channels_in, channels_out, 1)
        else:
            self.nin_shortcut = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels_in, h, w) -> (B, channels_out, h, w)."""
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return self.nin_shortcut(x) + h


class SelfAttention(nn.Module):
    """One-head self-attention over all positions, with a skip connection."""

    def __init__(self, channels: int, config: VQGANConfig) -> None:
        super().__init__()
        self.norm = _norm(channels, config)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)
        _start_at_zero(self.proj_out)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w)."""
        h = self.norm(x)
        q, k, v = (
            part(h).flatten(2).transpose(1, 2) for part in (self.q, self.k, self.v)
        )  # (B, h * w, C)
        out = F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0]
        return x + self.proj_out(out.transpose(1, 2).reshape(x.shape))


class Downsample(nn.Module):
    """Halves the side; pads right and below only, as the published weights expect."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h / 2, w / 2)."""
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Doubles the side."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, 2 h, 2 w)."""
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Level(nn.Module):
    """One resolution: residual blocks, each perhaps with attention, then a resampling."""

    def __init__(
        self,
        channels_in: int,
        channels: int,
        blocks: int,
        attention: bool,
        resample: str,
        config: VQGANConfig,
    ) -> None:
        super().__init__()
        sizes = [channels_in] + [channels] * blocks
        self.block = nn.ModuleList(
            ResBlock(a, b, config) for a, b in zip(sizes, sizes[1:], strict=False)
        )
        self.attn = nn.ModuleList(
            SelfAttention(channels, config) for _ in range(blocks if attention else 0)
        )
        if resample == "down":
            self.downsample = Downsample(channels)
        elif resample == "up":
            self.upsample = Upsample(channels)
        self.resample = resample

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels_in, h, w) -> (B, channels, h', w')."""
        for i, block in enumerate(self.block):
            x = block(x)
            if len(self.attn):
                x = self.attn[i](x)
        if self.resample == "down":
            return self.downsample(x)
        if self.resample == "up":
            return self.upsample(x)
        return x


class Middle(nn.Module):
    """Residual block, attention, residual block at the lowest resolution."""

    def __init__(self, channels: int, config: VQGANConfig) -> None:
        super().__init__()
        self.block_1 = ResBlock(channels, channels, config)
        self.attn_1 = SelfAttention(channels, config) if config.mid_attention else nn.Identity()
        self.block_2 = ResBlock(channels, channels, config)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w)."""
        return self.block_2(self.attn_1(self.block_1(x)))


class Encoder(nn.Module):
    """Pictures (B, 3, H, W) to a grid (B, z_channels, H / f, W / f)."""

    def __init__(self, config: VQGANConfig) -> None:
        super().__init__()
        self.patch_size = config.patch_size
        sizes = [config.channels * m for m in config.channel_multipliers]
        self.conv_in = nn.Conv2d(3 * config.patch_size**2, config.channels, 3, padding=1)
        self.down = nn.ModuleList()
        side, last = config.image_size // config.patch_size, config.channels
        for i, size in enumerate(sizes):
            resample = "down" if i < len(sizes) - 1 else ""
            attention = side in config.attention_resolutions
            self.down.append(Level(last, size, config.num_res_blocks, attention, resample, config))
            side, last = side // 2, size
        self.mid = Middle(last, config)
        self.norm_out = _norm(last, config)
        self.conv_out = nn.Conv2d(last, config.z_channels, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        x = self.conv_in(F.pixel_unshuffle(images, self.patch_size))
        for level in self.down:
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(self.mid(x))))


class Decoder(nn.Module):
    """A grid (B, z_channels, h, w) to pictures (B, 3, f h, f w).

    ``up[0]`` is the highest resolution.
    """

    def __init__(self, config: VQGANConfig) -> None:
        super().__init__()
        self.patch_size = config.patch_size
        sizes = [config.channels * m for m in config.channel_multipliers]
        last, side = sizes[-1], config.grid_size
        self.conv_in = nn.Conv2d(config.z_channels, last, 3, padding=1)
        self.mid = Middle(last, config)
        levels = []
        for i, size in reversed(list(enumerate(sizes))):
            attention = side in config.attention_resolutions
            levels.append(
                Level(last, size, config.num_res_blocks + 1, attention, "up" if i else "", config)
            )
            side, last = side * 2, size
        self.up = nn.ModuleList(reversed(levels))
        self.norm_out = _norm(last, config)
        self.conv_out = nn.Conv2d(last, 3 * config.patch_size**2, 3, padding=1)

    def forward(self, grid: Tensor) -> Tensor:
        """See the class."""
        x = self.mid(self.conv_in(grid))
        for level in reversed(self.up):
            x = level(x)
        return F.pixel_shuffle(self.conv_out(F.silu(self.norm_out(x))), self.patch_size)


class VQGAN(nn.Module):
    """Image tokenizer; implements `cm3_imagetok.interface.ImageTokenizer`.

    Args:
        config: The shape.
    """

    def __init__(self, config: VQGANConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.quant_conv = nn.Conv2d(config.z_channels, config.embed_dim, 1)
        self.post_quant_conv = nn.Conv2d(config.embed_dim, config.z_channels, 1)
        if config.quantizer == "ema":
            self.quantize = EMAQuantizer(config.num_codes, config.embed_dim, config.beta)
        else:
            normalise = config.quantizer == "normalised"
            self.quantize = NearestQuantizer(
                config.num_codes, config.embed_dim, config.beta, normalise
            )

    @property
    def num_codes(self) -> int:
        """Size of the codebook."""
        return self.config.num_codes

    @property
    def downsampling(self) -> int:
        """Pixels per code along one side."""
        return self.config.downsampling

    def latent(self, images: Tensor) -> Tensor:
        """The grid before quantization, (B, 3, H, W) -> (B, embed_dim, H / f, W / f)."""
        if (
            images.ndim != 4
            or images.shape[1] != 3
            or any(s % self.downsampling or s == 0 for s in images.shape[2:])
        ):
            raise ValueError(
                f"images: wanted (B, 3, H, W) with H and W multiples of {self.downsampling}, "
                f"got {tuple(images.shape)}"
            )
        return self.quant_conv(self.encoder(images))

    def render(self, grid: Tensor) -> Tensor:
        """Pictures of a quantized grid, not clipped: (B, embed_dim, h, w) -> (B, 3, f h, f w)."""
        return self.decoder(self.post_quant_conv(grid))

    def forward(self, images: Tensor) -> tuple[Tensor, Quantized]:
        """For training: reconstruction (B, 3, H, W), not clipped, and what the quantizer gave."""
        quantized = self.quantize(self.latent(images))
        return self.render(quantized.grid), quantized

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Codes (B, H / f, W / f) of pictures (B, 3, H, W) in [-1, 1]."""
        return self.quantize.encode(self.latent(images))

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """Pictures (B, 3, f h, f w) in [-1, 1] of codes (B, h, w)."""
        if codes.ndim != 3 or codes.is_floating_point():
            raise ValueError(
                f"codes: wanted integers of shape (B, h, w), got {codes.dtype} {tuple(codes.shape)}"
            )
        if codes.numel() and not (0 <= int(codes.min()) and int(codes.max()) < self.num_codes):
            raise ValueError(
                f"codes: wanted values in [0, {self.num_codes}), "
                f"got {int(codes.min())} to {int(codes.max())}"
            )
        return self.render(self.quantize.decode(codes)).clamp(-1, 1)
