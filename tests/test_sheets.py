"""Sheets of pictures."""

import numpy as np
import pytest
from PIL import Image

from cm3leon.sheets import in_rows, sheet, write_blocks


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


@pytest.mark.parametrize(("count", "lines"), [(1, [1]), (8, [8]), (9, [5, 4]), (17, [6, 6, 5])])
def test_lines_of_many_pictures_are_of_nearly_equal_length(count, lines):
    pictures = [np.full((4, 4, 3), number, np.uint8) for number in range(count)]
    rows, labels = in_rows("a name", pictures, [str(number) for number in range(count)])
    found = [[cell for cell in cells if cell is not None] for _, cells in rows]
    assert [len(cells) for cells in found] == lines
    assert [cell[0, 0, 0] for cells in found for cell in cells] == list(range(count))
    assert len({len(cells) for _, cells in rows}) == 1
    assert [name for name, _ in rows] == ["a name", *[""] * (len(lines) - 1)]
    assert [label for line in labels for label in line if label] == [*map(str, range(count))]
