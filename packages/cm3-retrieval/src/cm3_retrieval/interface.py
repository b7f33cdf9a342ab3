"""What the package asks of an encoder, and the version that everything saved to disk names.

Takes nothing, gives the `Encoder` Protocol. Any class with these four members can stand in for
`ClipEncoder`; `cm3_retrieval.contract.check_encoder` tells whether it keeps the promises. Paper 2.1
(arXiv 2309.02591) uses a frozen CLIP ViT-B-32.
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from PIL import Image

INTERFACE_VERSION = "1.0"
"""`major.minor`; a loader refuses an artifact of another major version."""

ENCODER_COMPONENT = "cm3-retrieval/clip"
"""The name that a saved CLIP carries."""

BANK_COMPONENT = "cm3-retrieval/memory-bank"
"""The name that a saved memory bank carries."""

TABLE_COMPONENT = "cm3-retrieval/neighbour-table"
"""The name that a saved neighbour table carries."""

SHARD_COMPONENT = "cm3-retrieval/shard"
"""The name that each finished step of a bank built in shards carries."""


@runtime_checkable
class Encoder(Protocol):
    """Maps texts and images into one space in which an inner product says how well they match."""

    @property
    def dim(self) -> int:
        """Length of a vector."""
        ...

    @property
    def encoder_id(self) -> str:
        """Name and hash of the weights; two encoders with the same id give the same vectors."""
        ...

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Encode N texts, each on its own.

        Args:
            texts: N texts, each of any length; an empty text has a vector, too.

        Returns:
            (N, dim) float32, rows of length 1.
        """
        ...

    def encode_images(self, images: Sequence[Image.Image | np.ndarray]) -> np.ndarray:
        """Encode N pictures, each on its own.

        Args:
            images: N pictures: PIL images, or (H, W, 3) uint8 arrays. Sizes may differ.

        Returns:
            (N, dim) float32, rows of length 1.
        """
        ...
