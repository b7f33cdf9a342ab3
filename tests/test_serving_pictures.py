"""Pictures from strangers: what is read of them, and what is refused before it costs anything."""

import base64
import io
import struct
import zlib

import numpy as np
import pytest
from fake_service import file_of, text_of
from hypothesis import given, settings, strategies as st
from PIL import Image

from cm3_imagetok import ImageError, load_image
from cm3leon.serving.limits import Limits
from cm3leon.serving.pictures import KEPT, read_masked, read_picture, to_base64

LIMITS = Limits(picture_bytes=200_000, pixels=2_000_000)
NOISE = np.random.default_rng(0).integers(0, 256, (24, 16, 3), np.uint8)
PICTURE = Image.fromarray(NOISE)


def masked_of(file, mask, transparent=False):
    return read_masked(file, mask, LIMITS, "picture", transparent)


def header(width, height, depth=8, kind=2, content=b"\0"):
    """A PNG of which there may be little more than its header."""

    def chunk(name, content):
        body = name + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    start = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n" + start + chunk(b"IDAT", zlib.compress(content)) + chunk(b"IEND", b"")
    )


def odd_ones():
    """Files of many kinds."""
    rgba = PICTURE.convert("RGBA")
    rgba.putalpha(Image.fromarray(NOISE[..., 0]))
    turned = Image.Exif()
    turned[0x0112] = 6
    grey16 = Image.fromarray((NOISE[..., 0].astype(np.uint16) << 8) + 7)
    frames = [PICTURE.rotate(90 * n) for n in range(3)]
    return {
        "png": file_of(PICTURE),
        "jpeg": file_of(PICTURE, "JPEG"),
        "webp": file_of(PICTURE, "WEBP", lossless=True),
        "rgba": file_of(rgba),
        "transparent webp": file_of(rgba, "WEBP", lossless=True),
        "palette": file_of(PICTURE.convert("P"), transparency=3),
        "grey 16": file_of(grey16),
        "grey": file_of(PICTURE.convert("L")),
        "one bit": file_of(PICTURE.convert("1")),
        "cmyk": file_of(PICTURE.convert("CMYK"), "JPEG"),
        "progressive": file_of(PICTURE, "JPEG", progressive=True),
        "turned": file_of(PICTURE, "JPEG", exif=turned),
        "turned png": file_of(PICTURE, exif=turned),
        "apng": file_of(frames[0], save_all=True, append_images=frames[1:]),
        "moving webp": file_of(frames[0], "WEBP", save_all=True, append_images=frames[1:]),
    }


@pytest.mark.parametrize("name", odd_ones())
def test_pictures_are_read_as_by_every_other_command(name):
    content = odd_ones()[name]
    wanted = load_image(content)
    for file in (content, text_of(content), f"data:image/png;base64,{text_of(content)}"):
        got = read_picture(file, LIMITS)
        assert got.mode == "RGB"
        np.testing.assert_array_equal(np.asarray(got), np.asarray(wanted))


def test_the_turned_one_is_upright():
    content = odd_ones()["turned"]
    assert read_picture(content, LIMITS).size == PICTURE.size[::-1]


@pytest.mark.parametrize(
    ("file", "wanted"),
    [
        (b"", "1 to 200000 bytes, got 0"),
        ("", "1 to 200000 bytes, got 0"),
        (b"\x89PNG\r\n\x1a\n", "no picture in a format of PNG, JPEG, WEBP"),
        (b"\x89PNG" + b"\0" * 200_000, "1 to 200000 bytes, got 200004"),
        ("A" * 400_000, "1 to 200000 bytes, got more"),
        ("not base64!", "base64"),
        ("AAA", "base64"),
        ("AA==AA==", "base64"),
        ("é" * 8, "base64"),
        ("data:image/gif;base64,AAAA", "base64"),
        ("data:text/html;base64,AAAA", "base64"),
        ("http://127.0.0.1/a.png", "base64"),
        (header(0, 5), "picture: "),
        (header(2000, 1001), "1 to 2000000 pixels, got 2000 x 1001"),
        (header(2**31 - 1, 2**31 - 1), "picture: "),
        (header(60_000, 60_000), "pixels"),
        (header(1_900_000, 1), "sides of at most 65535"),
        (header(100, 100), "cannot be decoded"),
        (file_of(PICTURE, "GIF"), "no picture in a format"),
        (file_of(PICTURE, "BMP"), "no picture in a format"),
        (file_of(PICTURE, "TIFF"), "no picture in a format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no picture in a format"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "no picture in a format"),
        (b"\xff\xd8" + b"\xff\xda" * 600, "at most 500 scans"),
    ],
    ids=range(24),
)
def test_what_is_no_picture_is_refused(file, wanted):
    with pytest.raises(ImageError, match=wanted) as caught:
        read_picture(file, LIMITS)
    assert str(caught.value).startswith("picture: ")
    assert "0x" not in str(caught.value) and "BytesIO" not in str(caught.value)


@pytest.mark.parametrize("name", ["png", "jpeg", "webp", "apng", "moving webp", "palette"])
def test_a_cut_or_spoiled_file_is_a_picture_or_refused(name):
    content = odd_ones()[name]
    rng = np.random.default_rng(1)
    for _ in range(60):
        spoiled = bytearray(content[: rng.integers(1, len(content) + 1)])
        for at in rng.integers(0, len(spoiled), rng.integers(0, 5)):
            spoiled[at] = rng.integers(256)
        try:
            assert read_picture(bytes(spoiled), LIMITS).mode == "RGB"
        except ImageError as error:
            assert str(error).startswith("picture: ")


@settings(max_examples=200, derandomize=True, deadline=None)
@given(st.one_of(st.text(max_size=80), st.binary(max_size=80)))
def test_nothing_else_is_raised(file):
    with pytest.raises(ImageError):
        read_picture(file, LIMITS)


def test_a_bomb_is_refused_by_its_header():
    bomb = header(14_000, 14_000, depth=1, kind=0, content=bytes(1751 * 14_000))
    assert len(bomb) < 50_000
    with pytest.raises(ImageError, match="wanted 1 to 2000000 pixels, got"):
        read_picture(bomb, LIMITS)
    smaller = header(8000, 8000, depth=1, kind=0, content=bytes(1001 * 8000))
    assert read_picture(smaller, Limits(pixels=64_000_000)).size == (1024, 1024)


def test_the_text_of_a_picture_is_no_bomb():
    from PIL.PngImagePlugin import PngInfo

    notes = PngInfo()
    notes.add_text("a", "x" * 40_000_000, zip=True)
    with pytest.raises(ImageError):
        read_picture(file_of(PICTURE, pnginfo=notes), LIMITS)


def test_large_pictures_are_kept_smaller_and_of_the_same_shape():
    large = Image.linear_gradient("L").resize((1600, 1200))
    picture = read_picture(file_of(large, "JPEG"), LIMITS)
    assert picture.width * picture.height <= KEPT
    assert picture.width / picture.height == pytest.approx(4 / 3, rel=0.01)
    mask = Image.new("L", large.size)
    mask.putpixel((800, 600), 255)
    mask.putpixel((1599, 1199), 255)
    picture, anew = masked_of(file_of(large), file_of(mask))
    assert anew.shape == picture.size[::-1]
    assert 2 <= anew.sum() <= 8 and anew[-1, -1]


def test_white_and_opaque_is_drawn_anew():
    mask = np.zeros((24, 16, 4), np.uint8)
    mask[..., 3] = 255
    mask[2:4, :3] = 255  # white, opaque
    mask[5, 5] = (255, 255, 255, 0)  # white, transparent
    mask[6, 6] = (255, 255, 255, 127)
    mask[7, 7] = (255, 0, 0, 255)
    picture, anew = masked_of(file_of(PICTURE), file_of(Image.fromarray(mask)))
    wanted = np.zeros((24, 16), bool)
    wanted[2:4, :3] = True
    np.testing.assert_array_equal(anew, wanted)
    np.testing.assert_array_equal(np.asarray(picture), NOISE)
    without_alpha = Image.fromarray(mask[..., 0])
    _, anew = masked_of(file_of(PICTURE), file_of(without_alpha))
    assert anew[5, 5] and anew[2, 2] and not anew[0, 0]


def test_openai_draws_anew_what_is_transparent():
    mask = np.full((24, 16, 4), 255, np.uint8)
    mask[4:9, 2:5, 3] = 0
    mask[10, 10, 3] = 1
    _, anew = masked_of(file_of(PICTURE), file_of(Image.fromarray(mask)), transparent=True)
    np.testing.assert_array_equal(anew, mask[..., 3] == 0)


@pytest.mark.parametrize("transparent", [False, True])
@pytest.mark.parametrize("name", odd_ones())
def test_any_picture_may_come_as_a_mask(name, transparent):
    try:
        picture, anew = masked_of(file_of(PICTURE), odd_ones()[name], transparent)
        assert anew.shape == (24, 16) and anew.dtype == bool and anew.any()
    except ImageError as error:
        assert str(error).startswith("mask: ")


def test_a_mask_has_the_size_of_its_picture():
    with pytest.raises(ImageError, match="mask: wanted the picture's size, 16 x 24, got 24 x 16"):
        masked_of(file_of(PICTURE), file_of(Image.new("L", (24, 16), 255)))


def test_a_png_comes_back_as_it_was():
    got = Image.open(io.BytesIO(base64.b64decode(to_base64(NOISE))))
    assert got.format == "PNG"
    np.testing.assert_array_equal(np.asarray(got), NOISE)
