"""The shape of a small CLIP and its training, importable without torch."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ClipTrainingConfig:
    """A small CLIP and its training; the defaults suit a few thousand 64-pixel pictures."""

    image_size: int = 64
    """Side of the square that pictures are scaled to, a multiple of 32."""

    embed_dim: int = 128
    """Length of a vector."""

    vision_width: int = 16
    """Channels of the ResNet's stem; its last stage has 32 times as many."""

    vision_layers: tuple[int, int, int, int] = (1, 1, 1, 1)
    """Blocks of the ResNet's four stages. For so little data and time it beat a ViT."""

    text_width: int = 128
    """Width of the text transformer, a multiple of its head size, 32."""

    text_layers: int = 1
    """Layers of the text transformer."""

    context_length: int = 32
    """Tokens read from a caption."""

    steps: int = 200
    """Optimiser steps."""

    batch_size: int = 128
    """Pairs in a step; every pair is compared with all others."""

    lr: float = 1e-3
    """Peak learning rate of AdamW."""

    warmup: int = 30
    """Steps until the peak, from which a cosine falls to 0."""

    weight_decay: float = 0.1
    """Weight decay of matrices and kernels; vectors have none."""

    max_shift: int = 4
    """Largest random shift of a picture, in pixels; half of the pictures are mirrored, too."""

    seed: int = 0
    """Seed of weights, order and augmentation."""

    def __post_init__(self) -> None:
        """Check every range."""
        for name in ("image_size", "text_width"):
            if getattr(self, name) < 32 or getattr(self, name) % 32:
                raise ValueError(f"{name}: wanted a multiple of 32, got {getattr(self, name)}")
        least = {
            "embed_dim": 1, "vision_width": 2, "text_layers": 1, "context_length": 3, "steps": 1,
            "batch_size": 2, "warmup": 0, "max_shift": 0, "weight_decay": 0, "seed": 0,
        }  # fmt: skip
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise ValueError(f"{name}: wanted at least {bound}, got {getattr(self, name)}")
        if self.vision_width % 2:
            raise ValueError(f"vision_width: wanted an even number, got {self.vision_width}")
        if len(self.vision_layers) != 4 or min(self.vision_layers) < 1:
            raise ValueError(f"vision_layers: wanted four of at least 1, got {self.vision_layers}")
        if not self.lr > 0:
            raise ValueError(f"lr: wanted more than 0, got {self.lr}")
