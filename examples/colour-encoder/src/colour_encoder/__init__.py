"""An encoder of texts and pictures by colours and words; it keeps cm3_retrieval's `Encoder`."""

import re
import zlib
from collections.abc import Sequence

import numpy as np
from PIL import Image

COLOURS = {
    "white": (255, 255, 255), "black": (0, 0, 0), "grey": (196, 196, 196), "red": (225, 60, 50),
    "orange": (255, 160, 60), "yellow": (252, 232, 60), "green": (110, 190, 80),
    "blue": (90, 170, 240), "purple": (165, 115, 210), "pink": (255, 163, 196),
    "brown": (150, 100, 50),
}  # fmt: skip


class ColourEncoder:
    """Vectors of the colours named or seen, then hashed words, then a constant for nothing."""

    def __init__(self, words: int = 256) -> None:
        """Hash words into `words` places."""
        self.words = words
        self.dim = len(COLOURS) + words + 1
        self.encoder_id = f"colour-encoder-1-{words}"

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Encode N texts as (N, dim): a colour counts as a word of its own."""
        rows = self._rows(len(texts))
        for row, text in zip(rows, texts, strict=True):
            for word in re.findall(r"\w+", text.casefold()):
                if word in COLOURS:
                    row[list(COLOURS).index(word)] += 1
                else:
                    row[len(COLOURS) + zlib.crc32(word.encode()) % self.words] += 1
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def encode_images(self, images: Sequence[Image.Image | np.ndarray]) -> np.ndarray:
        """Encode N pictures as (N, dim): the share of the pixels nearest to each colour."""
        rows, palette = self._rows(len(images)), np.array(list(COLOURS.values()), np.float32)
        for row, image in zip(rows, images, strict=True):
            picture = Image.fromarray(image) if isinstance(image, np.ndarray) else image
            pixels = np.asarray(picture.convert("RGB").resize((32, 32)), np.float32).reshape(-1, 3)
            nearest = np.square(pixels[:, None] - palette).sum(2).argmin(1)
            row[: len(COLOURS)] = np.bincount(nearest, minlength=len(COLOURS)) / len(nearest)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def _rows(self, count: int) -> np.ndarray:
        rows = np.zeros((count, self.dim), np.float32)
        rows[:, -1] = 0.1  # a text without words has a vector, too
        return rows
