"""The shape of a decoder: one frozen config, the paper's sizes, and a parameter count.

Takes plain numbers and names, gives a validated `DecoderConfig`. Paper: 2.3 (architecture and
initialisation) and table 3 of appendix B.2 (sizes) of CM3Leon, arXiv 2309.02591. The parts that
make a Chameleon (arXiv 2405.09818, 2.3) are chosen by the same config.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, get_args

Activation = Literal["gelu", "relu", "swiglu"]
Norm = Literal["layer", "rms"]
Placement = Literal["before", "after"]
Positions = Literal["learned", "rotary", "rotary-places"]


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """Everything that decides the weights' shapes, their start values and the computation."""

    vocab_size: int
    """Number of ids in the joint space of text and image codes."""
    max_length: int
    """Context in tokens; no position lies beyond it."""
    num_layers: int
    """Number of transformer blocks."""
    width: int
    """Size of the residual stream; a multiple of `num_heads`."""
    num_heads: int
    """Attention heads, each `width / num_heads` wide."""
    mlp_ratio: int = 4
    """Hidden size of the MLP over `width`."""
    mlp_width: int | None = None
    """Hidden size of the MLP where it is not a multiple of `width`; None: `mlp_ratio * width`."""
    num_kv_heads: int | None = None
    """Heads of keys and values, shared by groups of queries (arXiv 2305.13245); None: all."""
    activation: Activation = "gelu"
    """Non-linearity of the MLP: GPT-3's "gelu", OPT's "relu", or the gated "swiglu"
    (arXiv 2002.05202), which has a third matrix."""
    norm: Norm = "layer"
    """"layer" norm with nothing learnt, as in the paper, or "rms" with a learnt scale."""
    norm_eps: float = 1e-5
    """Added to the variance, or mean square, in every norm but that of queries and keys."""
    norm_placement: Placement = "before"
    """Norm "before" each sublayer, or "after" it (Swin v2's, as Chameleon-34B)."""
    positions: Positions = "learned"
    """"learned" absolute vectors as in the paper, "rotary" (RoFormer, arXiv 2104.09864), or
    "rotary-places": rotary, but every other pair of channels turns by the place of a code in its
    picture, so that one head finds a place again in another picture, however long the text between
    is."""
    image_ids: tuple[int, int] | None = None
    """Ids `first <= id < stop` are image codes; "rotary-places" wants to know."""
    qk_norm: bool = False
    """Normalise queries and keys per head (arXiv 2302.05442), for stability at high rates."""
    qk_norm_affine: bool = False
    """Learn a scale and a shift of every head's channels in that norm, as Chameleon does."""
    qk_norm_eps: float = 1e-5
    """Added to the variance in that norm; Chameleon's, whatever its `norm_eps`."""
    rotary_theta: float = 10_000.0
    """Base of the rotary positions' frequencies."""
    tie_embeddings: bool = True
    """Compute the logits with the embedding matrix instead of one of their own."""
    init_std: float = 0.006
    """Standard deviation of the start values, before the cut at three deviations."""
    position_init_std: float = 0.0002
    """The same for the learned positions."""

    def __post_init__(self) -> None:
        """Refuse values that do not make a decoder."""
        for name in ("vocab_size", "max_length", "num_layers", "width", "num_heads", "mlp_ratio"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name}: wanted a whole number of at least 1, got {value!r}")
        for name in ("mlp_width", "num_kv_heads"):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < 1):
                raise ValueError(f"{name}: wanted None or at least 1, got {value!r}")
        for name, choices in (
            ("activation", Activation),
            ("positions", Positions),
            ("norm", Norm),
            ("norm_placement", Placement),
        ):
            if getattr(self, name) not in get_args(choices):
                wanted = " or ".join(repr(choice) for choice in get_args(choices))
                raise ValueError(f"{name}: wanted {wanted}, got {getattr(self, name)!r}")
        for name in ("qk_norm", "qk_norm_affine", "tie_embeddings"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name}: wanted true or false, got {getattr(self, name)!r}")
        for name in ("init_std", "position_init_std", "norm_eps", "qk_norm_eps", "rotary_theta"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not 0 < value < float("inf"):
                raise ValueError(f"{name}: wanted a number above 0, got {value!r}")
        if self.width % self.num_heads:
            raise ValueError(
                f"width: wanted a multiple of num_heads = {self.num_heads}, got {self.width}"
            )
        if self.num_heads % self.kv_heads:
            raise ValueError(
                f"num_kv_heads: wanted a divisor of num_heads = {self.num_heads}, "
                f"got {self.num_kv_heads}"
            )
        if self.qk_norm_affine and not self.qk_norm:
            raise ValueError("qk_norm_affine: wanted qk_norm with it, got false")
        if self.positions != "learned" and self.head_width % 2:
            raise ValueError(
                f"width: rotary positions want an even width / num_heads, got {self.head_width}"
            )
        self._check_image_ids()

    def _check_image_ids(self) -> None:
        wanted = self.positions == "rotary-places"
        if self.image_ids is None:
            if wanted:
                raise ValueError(
                    'image_ids: positions "rotary-places" want (first, stop), got None'
                )
            return
        if not wanted:
            raise ValueError(
                f'image_ids: wanted positions "rotary-places" with them, got {self.positions!r}'
            )
        ids = self.image_ids
        if not (
            isinstance(ids, tuple | list)
            and [type(value) for value in ids] == [int, int]
            and 0 <= ids[0] < ids[1] <= self.vocab_size
        ):
            raise ValueError(
                f"image_ids: wanted first and stop within 0..{self.vocab_size}, got {ids!r}"
            )
        object.__setattr__(self, "image_ids", tuple(ids))  # JSON has lists alone

    @property
    def head_width(self) -> int:
        """Width of one attention head."""
        return self.width // self.num_heads

    @property
    def kv_heads(self) -> int:
        """Heads of keys and values."""
        return self.num_heads if self.num_kv_heads is None else self.num_kv_heads

    @property
    def mlp_hidden(self) -> int:
        """Hidden size of the MLP."""
        return self.mlp_ratio * self.width if self.mlp_width is None else self.mlp_width


def num_parameters(config: DecoderConfig) -> int:
    """Count a decoder's weights without building it."""
    heads = config.num_heads + config.kv_heads
    attention = 2 * heads * config.head_width * config.width  # qkv and output
    mlp = (3 if config.activation == "swiglu" else 2) * config.mlp_hidden * config.width
    scales = config.width if config.norm == "rms" else 0
    qk = 2 * heads * config.head_width if config.qk_norm_affine else 0
    matrices = 1 if config.tie_embeddings else 2
    positions = config.max_length if config.positions == "learned" else 0
    rows = matrices * config.vocab_size + positions
    block = attention + mlp + 2 * scales + qk
    return config.num_layers * block + rows * config.width + scales


def operations_a_token(config: DecoderConfig, length: int) -> float:
    """Count a training step's operations a token, forward and backward.

    Six per weight that is multiplied, and 12 per layer, channel and position attended to, counting
    attention as if nothing were masked (PaLM, arXiv 2204.02311, appendix B).

    Args:
        config: The shape.
        length: Positions of a sequence.
    """
    looked_up = config.max_length if config.positions == "learned" else 0
    if not config.tie_embeddings:
        looked_up += config.vocab_size
    weights = num_parameters(config) - looked_up * config.width
    return 6 * weights + 12 * config.num_layers * config.width * length


def _paper_size(num_layers: int, width: int, num_heads: int, tied: bool = True) -> DecoderConfig:
    # Tied, an id's logit after itself is at first width * init_std: 6 at width 1024, but 25 at
    # 4096, where a model would start by copying its input, at 21 nats. So 7B is not tied.
    # 56,320 text ids and 8,192 image codes. The paper gives neither heads nor activation; both are
    # those of the OPT (arXiv 2205.01068) and GPT-3 models of the same width.
    return DecoderConfig(
        vocab_size=64512,
        max_length=4096,
        num_layers=num_layers,
        width=width,
        num_heads=num_heads,
        activation="relu",
        tie_embeddings=tied,
    )


CHAMELEON_PARTS: Mapping[str, Any] = MappingProxyType(
    {
        "activation": "swiglu",
        "norm": "rms",
        "positions": "rotary",
        "qk_norm": True,
        "qk_norm_affine": True,
        "qk_norm_eps": 1e-5,
        "tie_embeddings": False,
    }
)
"""Choices that make a decoder a Chameleon (arXiv 2405.09818, 2.3), at any size."""

PRESETS: Mapping[str, DecoderConfig] = MappingProxyType(
    {
        "cm3leon-350m": _paper_size(num_layers=24, width=1024, num_heads=16),
        "cm3leon-760m": _paper_size(num_layers=24, width=1536, num_heads=24),
        "cm3leon-7b": _paper_size(num_layers=32, width=4096, num_heads=32, tied=False),
        "chameleon-7b": DecoderConfig(
            vocab_size=65536,
            max_length=4096,
            num_layers=32,
            width=4096,
            num_heads=32,
            mlp_width=11008,
            init_std=0.02,
            **CHAMELEON_PARTS,
        ),
    }
)
"""The paper's three sizes (B.2), and its published heir, which Anole shares."""
