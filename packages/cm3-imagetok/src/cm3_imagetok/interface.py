"""The interface of an image tokenizer: pictures to grids of integers and back (paper 2.1)."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor

INTERFACE_VERSION = "1.0"
"""Version of `ImageTokenizer` and of this package's files; the major part must match on load."""

COMPONENT = "cm3-imagetok/vqgan"
"""Component name in this package's saved models."""


@runtime_checkable
class ImageTokenizer(Protocol):
    """Pictures to codes and back.

    `cm3_imagetok.contract.check_image_tokenizer` tests an implementation.
    """

    @property
    def num_codes(self) -> int:
        """Size of the codebook; every code lies in `[0, num_codes)`."""
        ...

    @property
    def downsampling(self) -> int:
        """Pixels per code along one side.

        A picture of (H, W) has (H // downsampling, W // downsampling) codes.
        """
        ...

    def encode(self, images: Tensor) -> Tensor:
        """Return the codes of pictures.

        Args:
            images: Floating point (B, 3, H, W) in [-1, 1], H and W multiples of `downsampling`.

        Returns:
            Codes (B, H // downsampling, W // downsampling), int64.
        """
        ...

    def decode(self, codes: Tensor) -> Tensor:
        """Return the pictures of codes.

        Args:
            codes: Integers (B, h, w) in `[0, num_codes)`.

        Returns:
            Pictures (B, 3, h * downsampling, w * downsampling), floating point in [-1, 1].
        """
        ...
