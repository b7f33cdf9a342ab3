"""Pictures of strangers. The same file stands beside each copy of `picture_file.py`."""

import io
import os
import struct
import time
import zlib
from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image

from cm3_imagetok import picture_file
from cm3_imagetok.picture_file import ImageError, list_files, load_image, shown, to_rgb

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


def oddly_turned(kind: str, **options) -> bytes:
    """A picture of 16 x 8 to be turned, with a tag that no writer can write: rational (-1, 0)."""
    entries = struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0)
    entries += struct.pack("<HHII", 0x9204, 10, 1, 8 + 2 + 24 + 4)
    ifd = struct.pack("<H", 2) + entries + struct.pack("<I", 0) + struct.pack("<ii", -1, 0)
    tags = b"Exif\0\0II*\0" + struct.pack("<I", 8) + ifd
    return encoded(plain(size=(16, 8)), kind, exif=tags, **options)


def chunk(name: bytes, content: bytes) -> bytes:
    """A part of a PNG."""
    return (
        struct.pack(">I", len(content)) + name + content
        + struct.pack(">I", zlib.crc32(name + content))
    )  # fmt: skip


def clear(depth: int, kind: int, row: bytes, colour: Sequence[int]) -> bytes:
    """A PNG of 4 x 2 with one transparent colour, at a depth that Pillow does not write."""
    header = struct.pack(">IIBBBBB", 4, 2, depth, kind, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
        + chunk(b"tRNS", struct.pack(f">{len(colour)}H", *colour))
        + chunk(b"IDAT", zlib.compress(2 * (b"\0" + row))) + chunk(b"IEND", b"")
    )  # fmt: skip


def of_numbers(values: object, kind: type) -> bytes:
    """A grey TIFF of 4 x 2 numbers; those of 32 bits may be called unsigned."""
    array = np.broadcast_to(np.array(values, kind), (2, 4)).copy()
    if kind is not np.uint32:
        return encoded(Image.fromarray(array), "TIFF")
    content = encoded(Image.fromarray(array.view(np.int32)), "TIFF")
    signed = struct.pack("<HHIHH", 339, 3, 1, 2, 0)  # tag SampleFormat
    assert signed in content
    return content.replace(signed, struct.pack("<HHIHH", 339, 3, 1, 1, 0))


def grey16(value: int, kind: str = "PNG", **options) -> bytes:
    return encoded(Image.fromarray(np.full((2, 4), value, np.uint16)), kind, **options)


def png_of_claimed_size(width: int, height: int) -> bytes:
    """A few bytes that claim any size: a decompression bomb's header."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(9)))


def noise(kind: str, side: int = 64, **options) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    return encoded(Image.fromarray(pixels), kind, **options)


def half(content: bytes) -> bytes:
    return content[: len(content) // 2]


# name -> content, size, colour of the first pixel within 3
# fmt: off
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
    "grey, 16 bits, transparent, png": (clear(16, 0, b"\3\xe8" * 4, [1000]), (4, 2), WHITE),
    "grey, 4 bits, transparent": (clear(4, 0, b"\x33\x33", [3]), (4, 2), WHITE),
    "grey, 4 bits, another transparent": (clear(4, 0, b"\x33\x33", [51]), (4, 2), (51, 51, 51)),
    "grey, 2 bits, transparent": (clear(2, 0, b"\x55", [1]), (4, 2), WHITE),
    "grey, 1 bit, transparent": (clear(1, 0, b"\0", [0]), (4, 2), WHITE),
    "rgb, 16 bits, transparent": (clear(16, 2, b"\3\xe8" * 12, [1000] * 3), (4, 2), WHITE),
    "grey, floating point": (of_numbers(0.5, np.float32), (4, 2), (128, 128, 128)),
    "grey, floating point, to 255": (of_numbers(77.0, np.float32), (4, 2), (77, 77, 77)),
    "grey, floating point, to 65535": (of_numbers(32768, np.float32), (4, 2), (128, 128, 128)),
    "grey, floating point, no number": (of_numbers(np.nan, np.float32), (4, 2), (0, 0, 0)),
    "grey, floating point, beside no number": (
        of_numbers([0.5, 0.5, np.nan, np.nan], np.float32), (4, 2), (128, 128, 128)
    ),
    "grey, floating point, beside infinity": (
        of_numbers([0.5, 0.5, np.inf, -np.inf], np.float32), (4, 2), (128, 128, 128)
    ),
    "grey, 32 bits, to 255": (of_numbers(200, np.int32), (4, 2), (200, 200, 200)),
    "grey, 32 bits, to 65535": (of_numbers(32768, np.int32), (4, 2), (128, 128, 128)),
    "grey, 32 bits": (of_numbers(2**30, np.int32), (4, 2), (128, 128, 128)),
    "grey, 32 bits, below zero": (of_numbers(-1, np.int32), (4, 2), (0, 0, 0)),
    "grey, 32 bits, unsigned": (of_numbers(2**31, np.uint32), (4, 2), (128, 128, 128)),
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
    "exif, turned, odd tag": (oddly_turned("JPEG"), (8, 16), RED),
    "exif, turned, odd tag, png": (oddly_turned("PNG"), (8, 16), RED),
    "exif, turned, odd tag, webp": (oddly_turned("WEBP", lossless=True), (8, 16), RED),
    "exif, turned, tiff": (encoded(plain(size=(16, 8)), "TIFF", tiffinfo={274: 6}), (8, 16), RED),
    "exif, broken": (encoded(plain(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff"), (4, 2), RED),
    "1 x 1": (encoded(plain(size=(1, 1))), (1, 1), RED),
    "20000 x 1": (encoded(plain(size=(20000, 1))), (20000, 1), RED),
    "1 x 20000": (encoded(plain(size=(1, 20000))), (1, 20000), RED),
}
# fmt: on
# name -> content, part of the message
BROKEN = {
    "zero bytes": (b"", "got 0"),
    "text": (b"hello", "no picture"),
    "html": (b"<!doctype html><title>404</title>", "no picture"),
    "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "no picture"),
    "eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "no picture"),
    "eps named png": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no picture"),
    **{
        kind.lower(): (encoded(plain(size=(16, 16)), kind), "no picture")
        for kind in ("ICO", "PPM", "TGA", "JPEG2000", "AVIF", "PCX", "SGI")
    },
    "header cut in a chunk": (encoded(plain())[:20], "cannot be decoded|no picture"),
    "truncated png": (half(noise("PNG")), "cannot be decoded"),
    "truncated jpeg": (half(noise("JPEG")), "cannot be decoded"),
    "truncated webp": (half(noise("WEBP")), "no picture|cannot be decoded"),
    "truncated gif": (half(noise("GIF")), "cannot be decoded"),
    "truncated bmp": (half(noise("BMP")), "cannot be decoded"),
    "truncated tiff": (half(noise("TIFF")), "no picture|cannot be decoded"),
    "header alone": (noise("JPEG")[:20], "no picture|cannot be decoded"),
    "over the pixels": (png_of_claimed_size(8001, 8000), "got 8001 x 8000"),
    "over the side": (png_of_claimed_size(65536, 1), "at most 65535 pixels, got 65536 x 1"),
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
    monkeypatch.setattr(picture_file, "MAX_BYTES", 100)
    with (tmp_path / "large.png").open("wb") as file:
        file.truncate(2**40)  # sparse: a terabyte that takes no room
    with pytest.raises(ImageError, match=r"large\.png: wanted 1 to 100 bytes, got more"):
        load_image(tmp_path / "large.png")


def test_large_pictures_are_refused_by_their_header(monkeypatch):
    monkeypatch.setattr(picture_file, "MAX_PIXELS", 99)
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


def test_no_program_is_started(tmp_path, monkeypatch):
    """Pillow gives an EPS to Ghostscript, whatever its file is called."""
    monkeypatch.setattr("subprocess.Popen", lambda *_, **__: pytest.fail("a program was started"))
    monkeypatch.setattr("os.system", lambda *_: pytest.fail("a program was started"))
    (tmp_path / "cat.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    with pytest.raises(ImageError, match=r"cat\.png: no picture"):
        load_image(tmp_path / "cat.png")


def test_opened_pictures_are_treated_as_files_are():
    for name, (content, size, colour) in READABLE.items():
        with Image.open(io.BytesIO(content)) as picture:
            found = to_rgb(picture)
        assert (found.mode, found.size) == ("RGB", size), name
        assert np.abs(np.subtract(found.getpixel((0, 0)), colour)).max() <= 3, name
    with pytest.raises(ImageError, match=r"it: cannot be decoded"):
        to_rgb(Image.open(io.BytesIO(half(noise("PNG")))), "it")


NAMES = ("a.png", "b.JPG", "c.jpeg", "d.jfif", "e.jpe", "f.webp", "g.gif", "h.bmp", "i.tif",
         "j.TIFF", "k.apng")  # fmt: skip


def test_pictures_are_found_by_their_endings(tmp_path):
    (tmp_path / "sub").mkdir()
    for name in (*NAMES, "a.txt", "metadata.jsonl", "a.png.part", "png", "sub/z.png"):
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")  # is named when it is read
    wanted = sorted([*NAMES, "gone.png", "sub/z.png"])
    assert [path.relative_to(tmp_path).as_posix() for path in list_files(tmp_path)] == wanted


def test_hidden_files_are_no_pictures(tmp_path):
    for name in (".ipynb_checkpoints/0-checkpoint.png", "._0.png", ".DS_Store", "__MACOSX/0.png",
                 "sub/._1.png", "0.png"):  # fmt: skip
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert list_files(tmp_path) == [tmp_path / "0.png"]


def test_links_to_folders_are_followed_but_not_in_circles(tmp_path):
    for name in ("in/a", "out/b"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "0.png").touch()
    (tmp_path / "in/link").symlink_to(tmp_path / "out")
    (tmp_path / "in/a/up").symlink_to(tmp_path / "in")
    (tmp_path / "out/b/back").symlink_to(tmp_path / "in/a")
    found = [path.relative_to(tmp_path).as_posix() for path in list_files(tmp_path / "in")]
    assert found == ["in/a/0.png", "in/link/b/0.png", "in/link/b/back/0.png"]


def test_a_folder_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(OSError, match="none"):
        list_files(tmp_path / "none")


def test_names_that_are_no_utf8_are_shown(tmp_path):
    path = os.fsdecode(b"caf\xe9\x1b[31m.png")
    assert shown(path) == r"caf\xe9\x1b[31m.png"
    assert shown("half \ud83d.png") == r"half \ud83d.png"
    assert shown("caf\u00e9.png") == "caf\u00e9.png"
    with pytest.raises(ImageError, match=r"caf\\xe9\\x1b\[31m\.png: no such file"):
        load_image(tmp_path / path)
