import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cm3_imagetok import ImageError, load_image, square, to_pixels, to_tensor, transforms


def encoded(picture: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def test_transparency_lies_on_white():
    picture = Image.new("RGBA", (2, 2), (255, 0, 0, 0))
    assert np.asarray(load_image(encoded(picture))).min() == 255


def test_sixteen_bit_grey_is_scaled():
    values = np.array([[0, 32768], [65535, 257]], np.uint16)
    assert np.asarray(load_image(encoded(Image.fromarray(values))))[..., 0].tolist() == [
        [0, 128],
        [255, 1],
    ]


def test_exif_rotation_is_applied():
    picture = Image.new("RGB", (4, 2))
    exif = Image.Exif()
    exif[0x0112] = 6
    assert load_image(encoded(picture, "JPEG", exif=exif)).size == (2, 4)


def test_palette_with_transparency_and_cmyk():
    palette = Image.new("P", (2, 2))
    palette.putpalette([0, 0, 0] * 256)
    assert np.asarray(load_image(encoded(palette, transparency=0))).min() == 255
    assert load_image(encoded(Image.new("CMYK", (2, 2)), "JPEG")).mode == "RGB"


def test_broken_files_name_file_and_cause(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    whole = encoded(Image.fromarray(noise))
    for name, content in {
        "empty.png": b"",
        "text.png": b"hello",
        "half.png": whole[: len(whole) // 2],
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ImageError, match=name):
            load_image(tmp_path / name)
    with pytest.raises(ImageError, match="missing.png: no such file"):
        load_image(tmp_path / "missing.png")


def test_large_pictures_are_refused_by_their_header(monkeypatch):
    monkeypatch.setattr(transforms, "MAX_PIXELS", 99)
    with pytest.raises(ImageError, match="10 x 10"):
        load_image(encoded(Image.new("RGB", (10, 10))))


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**31))
def test_mutated_files_raise_only_image_errors(seed):
    rng = np.random.default_rng(seed)
    content = bytearray(encoded(Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))))
    for _ in range(rng.integers(1, 8)):
        content[rng.integers(len(content))] = rng.integers(256)
    try:
        assert load_image(bytes(content)).mode == "RGB"
    except ImageError:
        pass


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
