"""The tokenizers of a run, joined into one space of ids."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from cm3_decoding import CodeBlock
from cm3_imagetok import to_pixels, to_tensor
from cm3_imagetok.interface import ImageTokenizer
from cm3_texttok import DocumentLayout, Vocabulary
from cm3_texttok.interface import Tokenizer

BATCH = 64
"""Pictures that go through the image tokenizer at once."""


@dataclass(frozen=True, kw_only=True)
class Tokenizers:
    """Both tokenizers and the ids that they share."""

    text: Tokenizer
    image: ImageTokenizer
    size: int
    """Side of a picture in pixels."""
    device: torch.device
    """Where the image tokenizer is."""
    vocabulary: Vocabulary
    layout: DocumentLayout

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of a picture's codes."""
        side = self.size // self.image.downsampling
        return side, side

    @property
    def num_codes_per_image(self) -> int:
        """Codes of one picture."""
        return self.grid[0] * self.grid[1]

    @property
    def picture(self) -> CodeBlock:
        """The constraint of one whole picture.

        Raises:
            ValueError: The image tokenizer only reads pictures: nothing drawn could be shown.
        """
        self.check_draws()
        block = self.vocabulary.image
        return CodeBlock(start=block.offset, stop=block.stop, length=self.num_codes_per_image)

    @property
    def draws(self) -> bool:
        """Whether codes can become pictures; transformers' Chameleon has no part that does it."""
        return getattr(self.image, "decoder", self.image) is not None

    def check_draws(self) -> None:
        """Refuse an image tokenizer that gives no pictures.

        Raises:
            ValueError: Says what is wanted.
        """
        if not self.draws:
            raise ValueError(
                "imagetok: wanted an image tokenizer with a decoder, to draw, got one that only "
                "reads pictures; import the weights again with --vqgan vqgan.ckpt"
            )

    def encode(self, pixels: np.ndarray) -> np.ndarray:
        """Encode pixels (N, H, W, 3) uint8 as codes (N, h * w), int64."""
        parts = [
            self.image.encode(to_tensor(pixels[start : start + BATCH]).to(self.device)).flatten(1)
            for start in range(0, len(pixels), BATCH)
        ]
        return torch.cat(parts).cpu().numpy()

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """Decode codes (N, h * w) as pixels (N, H, W, 3) uint8."""
        grid = torch.from_numpy(np.asarray(codes, np.int64)).view(-1, *self.grid)
        parts = [to_pixels(self.image.decode(part.to(self.device))) for part in grid.split(BATCH)]
        return np.concatenate(parts)

    def through(self, pixels: np.ndarray) -> np.ndarray:
        """Encode and decode pixels (N, H, W, 3) uint8: the best that the decoder could draw."""
        return self.decode(self.encode(pixels))
