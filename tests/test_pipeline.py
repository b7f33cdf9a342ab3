"""Pieces of the apps that need no run."""

import decoder_training
import generate
import numpy as np
import pytest
import recipe
import torch
import views


@pytest.mark.parametrize("seed", range(8))
def test_other_views_move_pixels_and_lets_white_in(seed):
    images = torch.full((2, 3, 16, 16), 1.0)
    images[:, :, 6:10, 6:10] = torch.rand(2, 3, 4, 4) * 2 - 1
    change = views.other_views(8, 4, torch.Generator().manual_seed(0))[seed]
    changed = change(images)
    assert changed.shape == images.shape
    # nothing of the middle is lost or made up: the same values, elsewhere
    assert torch.equal(changed.flatten().sort().values, images.flatten().sort().values)
    assert torch.equal(change(images), changed)  # one way for all pictures


def test_views_differ():
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(1, 3, 16, 16)
    seen = [images, *(change(images) for change in views.other_views(7, 0, generator))]
    assert len({tuple(view.flatten().tolist()) for view in seen}) == 8


def test_a_component_is_named_by_its_class():
    made = recipe.instantiate({"class_path": "fractions.Fraction", "init_args": {"numerator": 3}})
    assert made == 3
    for path in ("", "fractions", "fractions.Nothing", "no.such.Module"):
        with pytest.raises(ValueError, match="class_path: wanted package.Class"):
            recipe.instantiate({"class_path": path})


class FakeRun:
    grid = (8, 8)


@pytest.mark.parametrize(
    ("size", "mask", "rows", "columns"),
    [
        ((64, 64), "16,8,48,40", (1, 5), (2, 6)),
        ((64, 64), "0,0,64,64", (0, 8), (0, 8)),
        ((64, 64), "17,9,18,10", (1, 2), (2, 3)),  # every code that the rectangle touches
        ((128, 64), "32,0,48,8", (0, 1), (0, 2)),  # a wide picture loses 32 pixels on each side
    ],
)
def test_a_rectangle_in_pixels_becomes_codes(size, mask, rows, columns):
    wanted = np.zeros((8, 8), bool)
    wanted[slice(*rows), slice(*columns)] = True
    np.testing.assert_array_equal(generate.masked_codes(FakeRun(), mask, size), wanted)


@pytest.mark.parametrize("mask", ["1,2,3", "a,b,c,d", "5,5,5,9", "0,0,65,10", "-1,0,5,5"])
def test_a_wrong_rectangle_is_named(mask):
    with pytest.raises(ValueError, match="--mask: wanted"):
        generate.masked_codes(FakeRun(), mask, (64, 64))


def test_codes_that_look_alike_start_alike():
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(40, 32, generator=generator) + 5
    vectors[1] = vectors[0] + 0.01
    embeddings = torch.full((40, 512), 0.25)
    decoder_training.add_projected(embeddings, vectors, 0.05, seed=0)
    added = embeddings - 0.25
    assert added.std().item() == pytest.approx(0.05, rel=1e-3)
    centred = torch.nn.functional.normalize(vectors - vectors.mean(0), dim=1)
    added = torch.nn.functional.normalize(added, dim=1)
    torch.testing.assert_close(added @ added.T, centred @ centred.T, atol=0.25, rtol=0)
    assert added[0] @ added[1] > 0.99


def test_the_start_from_the_codebook_is_drawn_from_the_seed():
    vectors = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    starts = [torch.zeros(8, 16) for _ in range(3)]
    for start, seed in zip(starts, (1, 1, 2), strict=True):
        decoder_training.add_projected(start, vectors, 0.1, seed)
    assert torch.equal(starts[0], starts[1])
    assert not torch.equal(starts[0], starts[2])
