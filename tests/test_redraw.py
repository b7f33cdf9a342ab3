"""A rectangle of a picture and the codes that it touches."""

from typing import Any, cast

import numpy as np
import pytest

from cm3leon.drawing.redraw import masked_codes, painted_codes


class EightByEight:
    grid = (8, 8)


TOKENIZERS = cast(Any, EightByEight())


@pytest.mark.parametrize(
    ("size", "rectangle", "rows", "columns"),
    [
        ((64, 64), (16, 8, 48, 40), (1, 5), (2, 6)),
        ((64, 64), (0, 0, 64, 64), (0, 8), (0, 8)),
        ((64, 64), (17, 9, 18, 10), (1, 2), (2, 3)),  # every code that the rectangle touches
        ((128, 64), (32, 0, 48, 8), (0, 1), (0, 2)),  # a wide picture loses 32 pixels on each side
    ],
)
def test_a_rectangle_in_pixels_becomes_codes(size, rectangle, rows, columns):
    wanted = np.zeros((8, 8), bool)
    wanted[slice(*rows), slice(*columns)] = True
    np.testing.assert_array_equal(masked_codes(TOKENIZERS, rectangle, size), wanted)


@pytest.mark.parametrize("rectangle", [(5, 5, 5, 9), (0, 0, 65, 10), (-1, 0, 5, 5)])
def test_a_wrong_rectangle_is_named(rectangle):
    with pytest.raises(ValueError, match="mask: wanted x0 < x1 <= 64"):
        masked_codes(TOKENIZERS, rectangle, (64, 64))


def test_a_rectangle_that_is_cropped_away_is_named():
    with pytest.raises(ValueError, match="cropped away"):
        masked_codes(TOKENIZERS, (0, 0, 10, 64), (128, 64))


@pytest.mark.parametrize("size", [(64, 64), (128, 64), (40, 100)])
@pytest.mark.parametrize("seed", [0, 1])
def test_every_painted_pixel_of_the_centre_square_is_redrawn(size, seed):
    """Independently: each pixel's centre, put into its cell by hand."""
    width, height = size
    painted = np.random.default_rng(seed).random((height, width)) < 0.01
    shorter = min(size)
    wanted = np.zeros((8, 8), bool)
    for y, x in np.argwhere(painted):
        row = (y + 0.5 - (height - shorter) / 2) * 8 / shorter
        column = (x + 0.5 - (width - shorter) / 2) * 8 / shorter
        if 0 <= row < 8 and 0 <= column < 8:
            wanted[int(row), int(column)] = True
    np.testing.assert_array_equal(painted_codes(TOKENIZERS, painted), wanted)


def test_a_mask_without_paint_is_named():
    with pytest.raises(ValueError, match="^mask: wanted a painted part of the centre square"):
        painted_codes(TOKENIZERS, np.zeros((64, 64), bool))
