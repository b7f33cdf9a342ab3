import io

import numpy as np
import pytest
from PIL import Image

from cm3_retrieval.clip.pictures import as_rgb


def pixel(image: Image.Image) -> tuple:
    return image.getpixel((0, 0))


def test_arrays_and_plain_modes():
    array = np.random.default_rng(0).integers(0, 256, (3, 5, 3), dtype=np.uint8)
    np.testing.assert_array_equal(np.asarray(as_rgb(array, "x")), array)
    for mode in ("RGB", "L", "1", "CMYK", "P"):
        assert as_rgb(Image.new(mode, (4, 4)), "x").mode == "RGB"


def test_transparency_shows_white_not_the_hidden_colour():
    assert pixel(as_rgb(Image.new("RGBA", (2, 2), (255, 0, 0, 0)), "x")) == (255, 255, 255)
    assert pixel(as_rgb(Image.new("RGBA", (2, 2), (255, 0, 0, 255)), "x")) == (255, 0, 0)
    assert pixel(as_rgb(Image.new("LA", (2, 2), (0, 0)), "x")) == (255, 255, 255)


def test_16_bits_are_scaled():
    deep = Image.fromarray(np.full((2, 2), 0x8080, np.uint16))
    assert pixel(as_rgb(deep, "x")) == (128, 128, 128)


def test_exif_rotation_is_applied():
    image = Image.new("RGB", (4, 2))
    exif = image.getexif()
    exif[0x0112] = 6
    file = io.BytesIO()
    image.save(file, "JPEG", exif=exif)
    assert as_rgb(Image.open(file), "x").size == (2, 4)


def test_broken_and_wrong_input():
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(file, "PNG")
    cut = Image.open(io.BytesIO(file.getvalue()[:3000]))
    with pytest.raises(ValueError, match="images.3.: cannot be decoded"):
        as_rgb(cut, "images[3]")
    with pytest.raises(ValueError, match="uint8 of shape"):
        as_rgb(np.zeros((4, 4, 3)), "x")
    with pytest.raises(ValueError, match="uint8 of shape"):
        as_rgb(np.zeros((4, 4), np.uint8), "x")
    with pytest.raises(ValueError, match="pixels"):
        as_rgb(Image.new("1", (2**14, 2**13)), "x")
    with pytest.raises(TypeError, match="got str"):
        as_rgb("cat.png", "x")  # type: ignore[arg-type]
