"""The shape of a small CLIP and its training.

Imports nothing heavy, so that a configuration file can name it without loading torch.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ClipTrainingConfig:
    """A small CLIP and its training; the defaults suit some thousand 64-pixel pictures."""

    image_size: int = 64
    """Side of the square the pictures are scaled to, a multiple of 32."""

    embed_dim: int = 256
    """Length of a vector."""

    vision_width: int = 16
    """Channels of the ResNet's stem; its last stage has 32 times as many."""

    vision_layers: tuple[int, int, int, int] = (1, 1, 1, 1)
    """Blocks of the ResNet's four stages. At this size of data and time it beat a ViT."""

    text_width: int = 128
    """Width of the text transformer, a multiple of 32, its head size."""

    text_layers: int = 1
    """Layers of the text transformer."""

    context_length: int = 32
    """Tokens of a caption that are read."""

    steps: int = 350
    """Optimiser steps."""

    batch_size: int = 128
    """Pairs in a step; every pair is measured against all the others."""

    lr: float = 2e-3
    """Peak learning rate of AdamW."""

    warmup: int = 30
    """Steps until the peak; from there a cosine down to 0."""

    weight_decay: float = 0.1
    """On matrices and kernels only."""

    likeness_weight: float = 20.0
    """Weight of the error by which vectors are less, or more, alike than their captions' words; 0
    is plain CLIP. Large values find the same thing in other colours, small ones tell colours
    apart."""

    max_shift: int = 4
    """Pixels by which a picture is moved at random; half of the pictures are mirrored, too."""

    seed: int | None = None
    """Seed of weights, order and augmentation; None is 0."""

    def __post_init__(self) -> None:
        """Check every range."""
        for name in ("image_size", "text_width"):
            if getattr(self, name) < 32 or getattr(self, name) % 32:
                raise ValueError(f"{name}: wanted a multiple of 32, got {getattr(self, name)}")
        least = {
            "embed_dim": 1, "vision_width": 2, "text_layers": 1, "context_length": 3, "steps": 1,
            "batch_size": 2, "warmup": 0, "max_shift": 0, "weight_decay": 0, "likeness_weight": 0,
        }  # fmt: skip
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise ValueError(f"{name}: wanted at least {bound}, got {getattr(self, name)}")
        if self.seed is not None and self.seed < 0:
            raise ValueError(f"seed: wanted at least 0, got {self.seed}")
        if self.vision_width % 2:
            raise ValueError(f"vision_width: wanted an even number, got {self.vision_width}")
        if len(self.vision_layers) != 4 or min(self.vision_layers) < 1:
            raise ValueError(f"vision_layers: wanted four of at least 1, got {self.vision_layers}")
        if not self.lr > 0:
            raise ValueError(f"lr: wanted more than 0, got {self.lr}")
