"""Views of training pictures: the same pixels elsewhere, each view in one way."""

import numpy as np
import pytest
import torch

from cm3leon.data.tokens import other_views


@pytest.mark.parametrize("view", range(8))
def test_other_views_move_pixels_and_let_white_in(view):
    pixels = np.full((2, 16, 16, 3), 255, np.uint8)
    pixels[:, 6:10, 6:10] = np.random.default_rng(0).integers(0, 255, (2, 4, 4, 3))
    change = other_views(8, 4, torch.Generator().manual_seed(0))[view]
    changed = change(pixels)
    assert changed.shape == pixels.shape
    # nothing of the middle is lost or made up: the same values, elsewhere
    assert np.array_equal(np.sort(changed.ravel()), np.sort(pixels.ravel()))
    assert np.array_equal(change(pixels), changed)  # one way for all pictures


def test_views_differ():
    generator = torch.Generator().manual_seed(0)
    pixels = np.random.default_rng(0).integers(0, 256, (1, 16, 16, 3), dtype=np.uint8)
    seen = [pixels, *(change(pixels) for change in other_views(7, 0, generator))]
    assert len({view.tobytes() for view in seen}) == 8
