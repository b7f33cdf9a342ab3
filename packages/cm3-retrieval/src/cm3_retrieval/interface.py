"""The `Encoder` Protocol, and the version and component names written into saved files.

Any class with the four members of `Encoder` can replace `ClipEncoder`;
`cm3_retrieval.contract.check_encoder` tells whether it keeps the promises. Paper 2.1
(arXiv 2309.02591) uses a frozen CLIP ViT-B-32.
"""

import re
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from PIL import Image

INTERFACE_VERSION = "1.0"
"""`major.minor`; a loader refuses an artifact of another major version."""

ENCODER_COMPONENT = "cm3-retrieval/clip"
"""Component name of a saved CLIP."""

BANK_COMPONENT = "cm3-retrieval/memory-bank"
"""Component name of a saved memory bank."""

TABLE_COMPONENT = "cm3-retrieval/neighbour-table"
"""Component name of a saved neighbour table."""

SHARD_COMPONENT = "cm3-retrieval/shard"
"""Component name of each finished step of a bank built in shards."""


def same_encoder(one: str, other: str) -> bool:
    """Tell whether two encoder ids stand for the same vectors.

    Ids of `ClipEncoder` end in the hash of all that decides the vectors, so the name before it,
    which may be the place of a folder, does not count. Other ids are compared as they are.
    """
    hashes = [re.fullmatch(r".*:([0-9a-f]{16})", identity, re.DOTALL) for identity in (one, other)]
    if all(hashes):
        return len({found[1] for found in hashes if found}) == 1
    return one == other


@runtime_checkable
class Encoder(Protocol):
    """An encoder of texts and images into one space, where inner products measure similarity."""

    @property
    def dim(self) -> int:
        """Length of a vector."""
        ...

    @property
    def encoder_id(self) -> str:
        """Name and hash of the weights; encoders with the same id give the same vectors."""
        ...

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Encode N texts, each on its own.

        Args:
            texts: N texts of any length; an empty text has a vector, too.

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
