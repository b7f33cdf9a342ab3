import io

import numpy as np
import pytest
import torch
from PIL import Image

from cm3_imagetok import ImageError, load_images, square, to_pixels, to_tensor


def png(width: int, height: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), "red").save(file, "PNG")
    return file.getvalue()


def test_a_batch_raises_or_skips_and_counts(tmp_path):
    (tmp_path / "empty.png").write_bytes(b"")
    sources = [png(4, 2), tmp_path / "empty.png", b"text", png(1, 1)]
    loaded = load_images(sources, on_error="skip")
    assert [picture.size for picture in loaded.pictures] == [(4, 2), (1, 1)]
    assert loaded.rows == [0, 3]
    assert ["empty.png" in str(error) for error in loaded.errors] == [True, False]
    with pytest.raises(ImageError, match=r"empty\.png"):
        load_images(sources)
    with pytest.raises(ValueError, match="on_error"):
        load_images(sources, on_error="ignore")


def test_square_crops_the_centre():
    picture = Image.new("RGB", (30, 10))
    picture.paste((255, 0, 0), (10, 0, 20, 10))
    assert np.asarray(square(picture, 10))[:, 2:8, 0].min() > 250


def test_pixels_round_trip():
    pixels = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3), dtype=np.uint8)
    tensor = to_tensor(pixels)
    assert tensor.shape == (2, 3, 4, 5)
    assert float(tensor.min()) >= -1 and float(tensor.max()) <= 1
    np.testing.assert_array_equal(to_pixels(tensor), pixels)
    with pytest.raises(ValueError, match="wanted uint8"):
        to_tensor(torch.zeros(2, 4, 5, 3))
