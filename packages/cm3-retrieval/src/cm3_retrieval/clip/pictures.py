"""Any picture as 8-bit RGB, as a viewer would show it.

Takes a PIL image or an (H, W, 3) uint8 array; gives a PIL image in mode RGB, with its EXIF rotation
applied, transparency on white, and 16 bits scaled to 8.
"""

import numpy as np
from PIL import Image, ImageOps

MAX_PIXELS = 2**26
"""About 67 million; a larger picture is refused before it is decoded."""


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
    if not 0 < image.width * image.height <= MAX_PIXELS:
        raise ValueError(f"{name}: wanted 1 to {MAX_PIXELS} pixels, got {image.size}")
    try:
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I") or image.mode == "F":
            return _scaled_to_8_bits(image)
        if image.has_transparency_data:
            image = image.convert("RGBA")
            white = Image.new("RGBA", image.size, "white")
            return Image.alpha_composite(white, image).convert("RGB")
        return image.convert("RGB")
    except (OSError, SyntaxError) as error:
        raise ValueError(f"{name}: wanted a whole picture, got a broken one ({error})") from error


def _scaled_to_8_bits(image: Image.Image) -> Image.Image:
    """Scale 0..65535 to 0..255: `convert("RGB")` would turn everything above 255 white."""
    values = np.asarray(image).astype(np.float64)
    if image.mode != "F":
        values = values / 257  # 65535 -> 255
    return Image.fromarray(values.round().clip(0, 255).astype(np.uint8)).convert("RGB")
