"""The shape of a decoder: one frozen config, the paper's sizes, and a parameter count.

Takes plain numbers and names, gives a validated `DecoderConfig`. Paper: 2.3 (architecture and
initialisation) and table 3 of appendix B.2 (sizes) of CM3Leon, arXiv 2309.02591.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, get_args

Activation = Literal["gelu", "relu"]
Positions = Literal["learned", "rotary"]


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """Everything that decides the weights' shapes, their start values and the computation."""

    vocab_size: int
    """Number of ids in the joint space of text and image codes."""
    max_length: int
    """Context in tokens; no position lies behind it."""
    num_layers: int
    """Number of transformer blocks."""
    width: int
    """Size of the residual stream; a multiple of `num_heads`."""
    num_heads: int
    """Attention heads, each `width / num_heads` wide."""
    mlp_ratio: int = 4
    """Hidden size of the MLP over `width`."""
    activation: Activation = "gelu"
    """Non-linearity of the MLP: GPT-3's "gelu" or OPT's "relu"."""
    positions: Positions = "learned"
    """"learned" absolute vectors as in the paper, or "rotary" (RoFormer, arXiv 2104.09864)."""
    qk_norm: bool = False
    """Normalise queries and keys per head (arXiv 2302.05442), for stability at large rates."""
    tie_embeddings: bool = True
    """Read the logits off the embedding matrix instead of a matrix of their own."""
    init_std: float = 0.006
    """Standard deviation of the start values, before the cut at three of them."""
    position_init_std: float = 0.0002
    """The same for the learned positions."""

    def __post_init__(self) -> None:
        """Refuse values that make no decoder."""
        for name in ("vocab_size", "max_length", "num_layers", "width", "num_heads", "mlp_ratio"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name}: wanted a whole number of at least 1, got {value!r}")
        for name, choices in (("activation", Activation), ("positions", Positions)):
            if getattr(self, name) not in get_args(choices):
                wanted = " or ".join(repr(choice) for choice in get_args(choices))
                raise ValueError(f"{name}: wanted {wanted}, got {getattr(self, name)!r}")
        for name in ("qk_norm", "tie_embeddings"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name}: wanted true or false, got {getattr(self, name)!r}")
        for name in ("init_std", "position_init_std"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not 0 < value < float("inf"):
                raise ValueError(f"{name}: wanted a number above 0, got {value!r}")
        if self.width % self.num_heads:
            raise ValueError(
                f"width: wanted a multiple of num_heads = {self.num_heads}, got {self.width}"
            )
        if self.positions == "rotary" and self.head_width % 2:
            raise ValueError(
                f"width: rotary positions want an even width / num_heads, got {self.head_width}"
            )

    @property
    def head_width(self) -> int:
        """Width of one attention head."""
        return self.width // self.num_heads


def num_parameters(config: DecoderConfig) -> int:
    """Number of weights of a decoder, without building it."""
    block = (4 + 2 * config.mlp_ratio) * config.width**2  # qkv, attention output, MLP up and down
    matrices = 1 if config.tie_embeddings else 2
    positions = config.max_length if config.positions == "learned" else 0
    rows = matrices * config.vocab_size + positions
    return config.num_layers * block + rows * config.width


def _paper_size(num_layers: int, width: int, num_heads: int) -> DecoderConfig:
    # 56,320 text ids and 8,192 image codes. The paper gives no heads and no activation; both
    # are those of the OPT (arXiv 2205.01068) and GPT-3 models of the same width.
    return DecoderConfig(
        vocab_size=64512,
        max_length=4096,
        num_layers=num_layers,
        width=width,
        num_heads=num_heads,
        activation="relu",
    )


PRESETS: Mapping[str, DecoderConfig] = MappingProxyType(
    {
        "cm3leon-350m": _paper_size(num_layers=24, width=1024, num_heads=16),
        "cm3leon-760m": _paper_size(num_layers=24, width=1536, num_heads=24),
        "cm3leon-7b": _paper_size(num_layers=32, width=4096, num_heads=32),
    }
)
"""The paper's three sizes (B.2)."""
