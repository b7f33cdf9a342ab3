"""Sheets of pictures."""

import numpy as np
from PIL import Image

from cm3leon.sheets import sheet, write_blocks


def rows(count, columns, colour):
    picture = np.full((64, 64, 3), colour, np.uint8)
    return [("a caption", [picture] * columns) for _ in range(count)]


def test_blocks_stand_side_by_side_and_empty_ones_are_left_out(tmp_path):
    one, two = rows(2, 3, (255, 0, 0)), rows(4, 2, (0, 0, 255))
    path = tmp_path / "sheet.png"
    write_blocks(path, [("one", one, ["a"] * 3), ("none", [], []), ("two", two, ["b"] * 2)])
    parts = [sheet(one, [["a"] * 3]), sheet(two, [["b"] * 2])]
    with Image.open(path) as whole:
        pixels = np.asarray(whole)
    assert pixels.shape[1] > sum(part.width for part in parts)
    assert parts[1].height < pixels.shape[0] < parts[1].height + 60
    red, blue = (np.all(pixels == colour, axis=2) for colour in ((255, 0, 0), (0, 0, 255)))
    assert red.sum() == 2 * 3 * 128**2 and blue.sum() == 4 * 2 * 128**2
    assert np.nonzero(red)[1].max() < np.nonzero(blue)[1].min()


def test_a_sheet_is_written_in_the_format_of_its_name(tmp_path):
    for name, kind in {"a.png": "PNG", "b.jpg": "JPEG", "c.webp": "WEBP"}.items():
        write_blocks(tmp_path / name, [("one", rows(1, 1, (0, 0, 0)), ["a"])])
        with Image.open(tmp_path / name) as picture:
            assert picture.format == kind
