import io
import os
import struct
import time
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from cm3_imagetok import (
    ImageError,
    load_image,
    load_images,
    square,
    to_pixels,
    to_tensor,
    transforms,
)

RED, WHITE = (255, 0, 0), (255, 255, 255)


def encoded(picture: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def plain(mode: str = "RGB", colour=RED, size: tuple[int, int] = (4, 2)) -> Image.Image:
    return Image.new(mode, size, colour)


def turned(orientation: int) -> bytes:
    """A JPEG of 16 x 8 whose left half is red, with an EXIF orientation."""
    picture = plain(colour=(0, 0, 255), size=(16, 8))
    picture.paste(RED, (0, 0, 8, 8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(picture, "JPEG", exif=exif, quality=95)


def palette(transparency: int) -> bytes:
    picture = plain("P", 0)
    picture.putpalette([255, 0, 0, 0, 0, 255])
    return encoded(picture, transparency=transparency)


def animation(kind: str) -> bytes:
    frames = [plain(colour=(0, 0, 255))]
    options = {} if kind == "MPO" else {"duration": 10}
    return encoded(plain(), kind, save_all=True, append_images=frames, **options)


def grey16(value: int, kind: str = "PNG", **options) -> bytes:
    return encoded(Image.fromarray(np.full((2, 4), value, np.uint16)), kind, **options)


def floating(value: float) -> bytes:
    return encoded(Image.fromarray(np.full((2, 4), value, np.float32)), "TIFF")


def png_of_claimed_size(width: int, height: int) -> bytes:
    """A few bytes that claim any size: a decompression bomb's header."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + name + content
            + struct.pack(">I", zlib.crc32(name + content))
        )  # fmt: skip

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(9)))


def noise(kind: str, side: int = 64, **options) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    return encoded(Image.fromarray(pixels), kind, **options)


def half(content: bytes) -> bytes:
    return content[: len(content) // 2]


# name -> content, size, colour of the first pixel within 3
READABLE = {
    "png": (encoded(plain()), (4, 2), RED),
    "jpeg": (encoded(plain(), "JPEG"), (4, 2), RED),
    "webp": (encoded(plain(), "WEBP", lossless=True), (4, 2), RED),
    "gif": (encoded(plain(), "GIF"), (4, 2), RED),
    "bmp": (encoded(plain(), "BMP"), (4, 2), RED),
    "tiff": (encoded(plain(), "TIFF"), (4, 2), RED),
    "tiff, lzw": (encoded(plain(), "TIFF", compression="tiff_lzw"), (4, 2), RED),
    "progressive jpeg": (encoded(plain(), "JPEG", progressive=True), (4, 2), RED),
    "cmyk jpeg": (encoded(plain("CMYK", (0, 255, 255, 0)), "JPEG"), (4, 2), (254, 0, 0)),
    "cmyk tiff": (encoded(plain("CMYK", (0, 255, 255, 0)), "TIFF"), (4, 2), RED),
    "one bit": (encoded(plain("1", 1)), (4, 2), WHITE),
    "grey": (encoded(plain("L", 77)), (4, 2), (77, 77, 77)),
    "grey, 16 bits": (grey16(32768), (4, 2), (128, 128, 128)),
    "grey, 16 bits, dark": (grey16(257), (4, 2), (1, 1, 1)),
    "grey, 16 bits, tiff": (grey16(65535, "TIFF"), (4, 2), WHITE),
    "grey, 16 bits, transparent": (grey16(257, transparency=257), (4, 2), WHITE),
    "grey, floating point": (floating(0.5), (4, 2), (128, 128, 128)),
    "grey, floating point, to 255": (floating(77.0), (4, 2), (77, 77, 77)),
    "grey, floating point, no number": (floating(float("nan")), (4, 2), (0, 0, 0)),
    "grey and alpha": (encoded(plain("LA", (0, 0))), (4, 2), WHITE),
    "alpha": (encoded(plain("RGBA", (255, 0, 0, 0))), (4, 2), WHITE),
    "half alpha": (encoded(plain("RGBA", (255, 0, 0, 128))), (4, 2), (255, 127, 127)),
    "alpha, webp": (encoded(plain("RGBA", (255, 0, 0, 0)), "WEBP", lossless=True), (4, 2), WHITE),
    "palette": (palette(1), (4, 2), RED),
    "palette, transparent": (palette(0), (4, 2), WHITE),
    "rgb, one colour transparent": (encoded(plain(), transparency=RED), (4, 2), WHITE),
    "animated gif": (animation("GIF"), (4, 2), RED),
    "animated webp": (animation("WEBP"), (4, 2), RED),
    "animated png": (animation("PNG"), (4, 2), RED),
    "several pages": (animation("TIFF"), (4, 2), RED),
    "several jpegs in one (mpo)": (animation("MPO"), (4, 2), RED),
    "exif, turned by 90": (turned(6), (8, 16), RED),
    "exif, turned by 180": (turned(3), (16, 8), (0, 0, 255)),
    "exif, mirrored": (turned(2), (16, 8), (0, 0, 255)),
    "exif, no such turn": (turned(99), (16, 8), RED),
    "exif, broken": (encoded(plain(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff"), (4, 2), RED),
    "1 x 1": (encoded(plain(size=(1, 1))), (1, 1), RED),
    "20000 x 1": (encoded(plain(size=(20000, 1))), (20000, 1), RED),
    "1 x 20000": (encoded(plain(size=(1, 20000))), (1, 20000), RED),
}
# name -> content, part of the message
BROKEN = {
    "zero bytes": (b"", "got 0"),
    "text": (b"hello", "no picture"),
    "html": (b"<!doctype html><title>404</title>", "no picture"),
    "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "no picture"),
    "eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "no picture"),
    "truncated png": (half(noise("PNG")), "cannot be decoded"),
    "truncated jpeg": (half(noise("JPEG")), "cannot be decoded"),
    "truncated webp": (half(noise("WEBP")), "no picture|cannot be decoded"),
    "truncated gif": (half(noise("GIF")), "cannot be decoded"),
    "truncated bmp": (half(noise("BMP")), "cannot be decoded"),
    "truncated tiff": (half(noise("TIFF")), "no picture|cannot be decoded"),
    "header alone": (noise("JPEG")[:20], "no picture|cannot be decoded"),
    "over the pixels": (png_of_claimed_size(8001, 8000), "got 8001 x 8000"),
    "decompression bomb": (png_of_claimed_size(2**31 - 1, 2**31 - 1), "cannot be decoded"),
    "bomb of no width": (png_of_claimed_size(0, 100), "cannot be decoded|no picture"),
    "jpeg of endless scans": (noise("JPEG", 8) + b"\xff\xda" * 501, "at most 500 scans"),
}


@pytest.mark.parametrize("name", READABLE)
@pytest.mark.parametrize("ending", ["png", "jpg", "txt"])
def test_readable_pictures_of_strangers(name, ending, tmp_path):
    content, size, colour = READABLE[name]
    path = tmp_path / f"picture.{ending}"  # mostly a wrong one, which does not matter
    path.write_bytes(content)
    picture = load_image(path)
    assert (picture.mode, picture.size) == ("RGB", size)
    assert np.abs(np.subtract(picture.getpixel((0, 0)), colour)).max() <= 3
    fitted = square(picture, 8)
    assert (fitted.mode, fitted.size) == ("RGB", (8, 8))


@pytest.mark.parametrize("name", BROKEN)
def test_broken_pictures_of_strangers_name_file_and_cause(name, tmp_path):
    content, message = BROKEN[name]
    path = tmp_path / "picture.png"
    path.write_bytes(content)
    for source, called in ((path, "picture.png"), (content, "picture")):
        with pytest.raises(ImageError, match=message) as caught:
            load_image(source)
        assert called in str(caught.value)


def test_what_is_no_file_is_named(tmp_path):
    with pytest.raises(ImageError, match=r"missing\.png: no such file"):
        load_image(tmp_path / "missing.png")
    with pytest.raises(ImageError, match="regular file"):
        load_image(tmp_path)
    os.mkfifo(tmp_path / "pipe")  # would wait for a writer for ever
    with pytest.raises(ImageError, match=r"pipe: wanted a regular file"):
        load_image(tmp_path / "pipe")
    with pytest.raises(ImageError, match="cannot be decoded"):
        load_image("a\0b")


def test_too_large_files_are_not_read_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(transforms, "MAX_BYTES", 100)
    with (tmp_path / "large.png").open("wb") as file:
        file.truncate(2**40)  # sparse: a terabyte that takes no room
    with pytest.raises(ImageError, match=r"large\.png: wanted 1 to 100 bytes, got more"):
        load_image(tmp_path / "large.png")


def test_a_batch_raises_or_skips_and_counts(tmp_path):
    (tmp_path / "empty.png").write_bytes(b"")
    sources = [READABLE["png"][0], tmp_path / "empty.png", b"text", READABLE["1 x 1"][0]]
    loaded = load_images(sources, on_error="skip")
    assert [picture.size for picture in loaded.pictures] == [(4, 2), (1, 1)]
    assert loaded.rows == [0, 3]
    assert ["empty.png" in str(error) for error in loaded.errors] == [True, False]
    with pytest.raises(ImageError, match=r"empty\.png"):
        load_images(sources)
    with pytest.raises(ValueError, match="on_error"):
        load_images(sources, on_error="ignore")


def test_large_pictures_are_refused_by_their_header(monkeypatch):
    monkeypatch.setattr(transforms, "MAX_PIXELS", 99)
    with pytest.raises(ImageError, match="10 x 10"):
        load_image(encoded(Image.new("RGB", (10, 10))))


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """Some bytes changed, a piece cut out, doubled or filled, or the end cut off."""
    changed = bytearray(content)
    for _ in range(rng.integers(1, 5)):
        kind, place = rng.integers(5), int(rng.integers(len(changed)))
        length = int(rng.integers(1, 17))
        if kind <= 1:
            changed[place] = rng.integers(256)
        elif kind == 2:
            del changed[place : place + length]
        elif kind == 3:
            changed[place:place] = changed[place : place + length]
        else:
            changed[place : place + 4] = (b"\xff" if rng.integers(2) else b"\0") * 4
        if len(changed) < 8:
            return bytes(changed)
    return bytes(changed[: rng.integers(8, len(changed) + 1)] if rng.random() < 0.1 else changed)


@pytest.mark.slow
def test_ten_thousand_mutated_files_raise_only_image_errors():
    seeds = [content for content, size, _ in READABLE.values() if max(size) < 100]
    seeds += [noise(kind, 8) for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")]
    rng = np.random.default_rng(0)
    read = refused = 0
    longest = 0.0
    for turn in range(10_000):
        content = mutated(seeds[turn % len(seeds)], rng)
        start = time.process_time()
        try:
            assert load_image(content).mode == "RGB"
            read += 1
        except ImageError:
            refused += 1
        longest = max(longest, time.process_time() - start)
    assert read > 1000 and refused > 1000
    assert longest < 10


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
