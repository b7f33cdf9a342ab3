"""Encoder and decoder of a VQGAN and their blocks (Esser et al., arXiv 2012.09841, appendix A).

Grids are (B, C, h, w). Parameter names are taming-transformers'.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cm3_imagetok.config import VQGANConfig


class _GroupNorm(nn.GroupNorm):
    """Group norm that autocast leaves in float32 on a CPU.

    PyTorch's kernel for channels-last bfloat16 takes three times as long.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalise (B, C, h, w)."""
        return super().forward(input.float() if torch.is_autocast_enabled("cpu") else input)


class _PositionNorm(nn.Module):
    """Layer norm over the channels of each position, which sees nothing of the others."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, input: Tensor) -> Tensor:
        """Normalise (B, C, h, w); in float32 under autocast, as the other norm."""
        rows = (input.float() if torch.is_autocast_enabled("cpu") else input).movedim(1, -1)
        return F.layer_norm(rows, rows.shape[-1:], self.weight, self.bias, 1e-6).movedim(-1, 1)


def _norm(channels: int, config: VQGANConfig, local: bool = False) -> nn.Module:
    return _PositionNorm(channels) if local else _GroupNorm(config.norm_groups, channels, eps=1e-6)


def _convolution(channels_in: int, channels_out: int, local: bool = False) -> nn.Conv2d:
    """Return a 3 x 3 convolution, or one that sees its own position alone."""
    size = 1 if local else 3
    return nn.Conv2d(channels_in, channels_out, size, padding=size // 2)


def _silu(x: Tensor) -> Tensor:
    """Apply SiLU to a fresh tensor, in place unless the gradient needs the input."""
    return F.silu(x, inplace=not torch.is_grad_enabled())


def _add(skip: Tensor, branch: Tensor) -> Tensor:
    """Add a fresh tensor, in place unless gradients or types forbid it."""
    if torch.is_grad_enabled() or skip.dtype != branch.dtype:
        return skip + branch
    return branch.add_(skip)


def _start_at_zero(convolution: nn.Conv2d) -> None:
    """Let a residual branch start at zero: short trainings get much further."""
    nn.init.zeros_(convolution.weight)
    assert convolution.bias is not None
    nn.init.zeros_(convolution.bias)


class ResBlock(nn.Module):
    """Two convolutions with a skip connection, 3 x 3 or, `local`, 1 x 1."""

    def __init__(
        self, channels_in: int, channels_out: int, config: VQGANConfig, local: bool = False
    ) -> None:
        super().__init__()
        self.norm1 = _norm(channels_in, config, local)
        self.conv1 = _convolution(channels_in, channels_out, local)
        self.norm2 = _norm(channels_out, config, local)
        self.conv2 = _convolution(channels_out, channels_out, local)
        _start_at_zero(self.conv2)
        if channels_in != channels_out:
            self.nin_shortcut = nn.Conv2d(channels_in, channels_out, 1)
        else:
            self.nin_shortcut = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, channels_in, h, w) to (B, channels_out, h, w)."""
        h = self.conv1(_silu(self.norm1(x)))
        h = self.conv2(_silu(self.norm2(h)))
        return _add(self.nin_shortcut(x), h)


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
        """Map (B, C, h, w) to (B, C, h, w)."""
        h = self.norm(x)
        q, k, v = (
            part(h).flatten(2).transpose(1, 2) for part in (self.q, self.k, self.v)
        )  # (B, h * w, C)
        out = F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0]
        return _add(x, self.proj_out(out.transpose(1, 2).reshape(x.shape)))


class Downsample(nn.Module):
    """Halving of the side; pads right and below only, as the published weights expect."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, h, w) to (B, C, h / 2, w / 2)."""
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Doubling of the side."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, h, w) to (B, C, 2 h, 2 w)."""
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Level(nn.Module):
    """One resolution: residual blocks, each with attention or without, then a resampling."""

    def __init__(
        self,
        channels_in: int,
        channels: int,
        blocks: int,
        attention: bool,
        resample: str,
        config: VQGANConfig,
        local: bool = False,
    ) -> None:
        super().__init__()
        sizes = [channels_in] + [channels] * blocks
        self.block = nn.ModuleList(
            ResBlock(a, b, config, local) for a, b in zip(sizes, sizes[1:], strict=False)
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
        """Map (B, channels_in, h, w) to (B, channels, h', w')."""
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

    def __init__(self, channels: int, config: VQGANConfig, local: bool = False) -> None:
        super().__init__()
        self.block_1 = ResBlock(channels, channels, config, local)
        self.attn_1 = SelfAttention(channels, config) if config.mid_attention else nn.Identity()
        self.block_2 = ResBlock(channels, channels, config, local)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, h, w) to (B, C, h, w)."""
        return self.block_2(self.attn_1(self.block_1(x)))


class Encoder(nn.Module):
    """Pictures (B, 3, H, W) to a grid (B, z_channels, H / f, W / f)."""

    def __init__(self, config: VQGANConfig) -> None:
        super().__init__()
        self.patch_size = config.patch_size
        local = config.local_encoder
        sizes = [config.channels * m for m in config.channel_multipliers]
        self.conv_in = _convolution(3 * config.patch_size**2, config.channels, local)
        self.down = nn.ModuleList()
        side, last = config.image_size // config.patch_size, config.channels
        for i, size in enumerate(sizes):
            resample = "down" if i < len(sizes) - 1 else ""
            attention = side in config.attention_resolutions
            blocks = config.num_res_blocks
            self.down.append(Level(last, size, blocks, attention, resample, config, local))
            side, last = side // 2, size
        self.mid = Middle(last, config, local)
        self.norm_out = _norm(last, config, local)
        self.conv_out = _convolution(last, config.z_channels, local)

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        x = self.conv_in(F.pixel_unshuffle(images, self.patch_size))
        for level in self.down:
            x = level(x)
        return self.conv_out(_silu(self.norm_out(self.mid(x))))


class Decoder(nn.Module):
    """A grid (B, z_channels, h, w) to pictures (B, 3, f h, f w).

    `up[0]` is the highest resolution.
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
        return F.pixel_shuffle(self.conv_out(_silu(self.norm_out(x))), self.patch_size)
