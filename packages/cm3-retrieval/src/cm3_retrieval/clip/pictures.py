"""Any picture as 8-bit RGB, as a viewer would show it.

Takes a PIL image or an (H, W, 3) uint8 array; gives a PIL image in mode RGB, as
`picture_file.to_rgb` does for files.
"""

import numpy as np
from PIL import Image

from cm3_retrieval.picture_file import to_rgb


def as_rgb(image: Image.Image | np.ndarray, name: str) -> Image.Image:
    """Convert one picture to a PIL image in mode RGB.

    Args:
        image: PIL image of any mode, or (H, W, 3) uint8 array.
        name: Name of the picture in errors.

    Raises:
        TypeError: `image` is neither a PIL image nor an array.
        ValueError: Another shape or dtype, too many pixels, or a broken file.
    """
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
            raise ValueError(
                f"{name}: wanted uint8 of shape (H, W, 3), got {image.dtype} of {image.shape}"
            )
        return Image.fromarray(image)
    if not isinstance(image, Image.Image):
        raise TypeError(f"{name}: wanted a PIL image or an array, got {type(image).__name__}")
    return to_rgb(image, name)
