"""What an image tokenizer is: pictures to grids of integers and back (paper section 2.1)."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor

INTERFACE_VERSION = "1.0"
"""Version of `ImageTokenizer` and of the files this package writes;

the major part must match on load.
"""

COMPONENT = "cm3-imagetok.vqgan"
"""Name that this package's saved models carry."""


@runtime_checkable
class ImageTokenizer(Protocol):
    """Pictures to codes and back.

    `cm3_imagetok.contract.check_image_tokenizer` tests an implementation.
    """

    @property
    def num_codes(self) -> int:
        """Size of the codebook; every code lies in ``[0, num_codes)``."""
        ...

    @property
    def downsampling(self) -> int:
        """Pixels per code along one side.

        A picture of (H, W) has (H // downsampling, W // downsampling) codes.
        """
        ...

    def encode(self, images: Tensor) -> Tensor:
        """Codes of pictures.

        Args:
            images: (B, 3, H, W), floating point in [-1, 1], H and W multiples of `downsampling`.

        Returns:
            (B, H // downsampling, W // downsampling), int64.
        """
        ...

    def decode(self, codes: Tensor) -> Tensor:
        """Pictures of codes.

        Args:
            codes: (B, h, w), integers in ``[0, num_codes)``.

        Returns:
            (B, 3, h * downsampling, w * downsampling), floating point in [-1, 1].
        """
        ...
