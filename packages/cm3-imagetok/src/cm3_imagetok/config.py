"""The shape of a VQGAN: one frozen dataclass that fits every published relative."""

from __future__ import annotations

from dataclasses import dataclass

QUANTIZERS = ("nearest", "normalised", "gumbel", "ema")


@dataclass(frozen=True, kw_only=True)
class VQGANConfig:
    """Shape of a VQGAN. The defaults are the paper's: f8, 8192 codes."""

    image_size: int = 256
    """Training side in pixels; other multiples of `downsampling` work too."""
    patch_size: int = 1
    """Pixels per side folded into channels before the first convolution. The published models have
    1; 4 spares a CPU the costly convolutions at full resolution."""
    channels: int = 128
    """Channels at the highest resolution."""
    channel_multipliers: tuple[int, ...] = (1, 1, 2, 4)
    """Channels of each level as multiples of `channels`, highest resolution first; the side is
    halved between levels."""
    num_res_blocks: int = 2
    """Residual blocks per level in the encoder; the decoder has one more."""
    attention_resolutions: tuple[int, ...] = ()
    """Sides (at `image_size`) of levels whose blocks are followed by self-attention."""
    mid_attention: bool = True
    """Self-attention at the lowest resolution."""
    local_encoder: bool = False
    """Encode each patch of `downsampling` pixels almost by itself: the encoder normalises every
    position alone and sees a neighbour only where the side is halved. The same thing elsewhere, or
    beside something else, then has the same codes, which a language model learns and copies
    sooner; detail costs more codes. The published models see the whole picture."""
    norm_groups: int = 32
    """Groups of each GroupNorm."""
    z_channels: int = 256
    """Channels of the encoder's output."""
    embed_dim: int = 256
    """Channels of a code vector."""
    num_codes: int = 8192
    """Size of the codebook."""
    quantizer: str = "nearest"
    """"nearest" (L2), "normalised" (unit vectors), "gumbel" (argmax of a projection) or "ema" (L2,
    codebook by moving averages)."""
    beta: float = 0.25
    """Weight of the commitment loss; unused by "gumbel"."""
    kl_weight: float = 5e-4
    """Weight of the divergence of the codes from even use at each position; "gumbel" only."""
    has_decoder: bool = True
    """Whether there is a decoder. Hugging Face's `ChameleonVQVAE` has none: `decode` then fails."""

    def __post_init__(self) -> None:
        """Refuse shapes that cannot be built, naming the parameter."""
        if self.quantizer not in QUANTIZERS:
            raise ValueError(f"quantizer: wanted one of {QUANTIZERS}, got {self.quantizer!r}")
        for name in (
            "image_size",
            "patch_size",
            "channels",
            "num_res_blocks",
            "norm_groups",
            "z_channels",
            "embed_dim",
            "num_codes",
        ):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name}: wanted an integer of at least 1, got {value!r}")
        for name in ("channel_multipliers", "attention_resolutions"):
            values = getattr(self, name)
            whole = isinstance(values, (tuple, list)) and all(
                isinstance(value, int) and not isinstance(value, bool) and value > 0
                for value in values
            )
            if not whole or (name == "channel_multipliers" and not values):
                raise ValueError(f"{name}: wanted integers of at least 1, got {values!r}")
        for multiplier in self.channel_multipliers:
            if self.channels * multiplier % self.norm_groups:
                raise ValueError(
                    f"norm_groups: wanted a divisor of every level's channels, "
                    f"got {self.norm_groups} for {self.channels * multiplier} channels"
                )
        if self.local_encoder and (self.mid_attention or self.attention_resolutions):
            raise ValueError(
                "local_encoder: wanted no attention with it, got mid_attention "
                f"{self.mid_attention}, attention_resolutions {self.attention_resolutions}"
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
