"""CLIP score and direction: the definitions, and torch's cosine."""

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from cm3leon.evaluation.measures.clip_scores import clip_directions, clip_scores, clip_similarities

RNG = np.random.default_rng(0)
A, B, C, D = RNG.normal(size=(4, 9, 6)).astype(np.float32)


def cosine(one, other):
    one, other = torch.from_numpy(one).double(), torch.from_numpy(other).double()
    return torch.cosine_similarity(one, other, dim=1).numpy()


def test_scores_are_torchs_cosine():
    np.testing.assert_allclose(clip_similarities(A, B), cosine(A, B), rtol=1e-9)
    np.testing.assert_allclose(clip_scores(A, B), 100 * cosine(A, B).clip(0), rtol=1e-9)
    assert (clip_scores(A, -A) == 0).all()
    np.testing.assert_allclose(clip_scores(A, A), 100)


@given(st.floats(1e-3, 1e3), st.floats(1e-3, 1e3))
def test_length_of_vectors_does_not_matter(one, other):
    np.testing.assert_allclose(clip_scores(A * one, B * other), clip_scores(A, B), atol=1e-4)


def test_direction_is_the_cosine_of_changes():
    found = clip_directions(A, B, C, D)
    np.testing.assert_allclose(found, cosine(B - A, D - C), rtol=1e-5)
    np.testing.assert_allclose(clip_directions(A, B, A, B), 1)
    np.testing.assert_allclose(clip_directions(A, B, B, A), -1)
    assert (clip_directions(A, A, C, D) == 0).all() and (clip_directions(A, B, C, C) == 0).all()


def test_odd_vectors_are_named():
    zero, bad = A.copy(), A.copy()
    zero[3], bad[2, 1] = 0, np.nan
    for pictures, texts, message in (
        (zero, B, r"pictures\[3\]: wanted a vector with a direction, got zeros"),
        (A, bad, r"texts\[2\]: wanted finite numbers, got NaN or infinity"),
        (A, B[:5], "texts: wanted 9, one for each, got 5"),
        (A, B[:, :4], "texts: wanted the 6 columns of pictures, got 4"),
        (A[0], B, r"pictures: wanted numbers \(N, D\), got float32 \(6,\)"),
        (A[:0], B[:0], "pictures: wanted at least 1 rows, got 0"),
    ):
        with pytest.raises(ValueError, match=message):
            clip_scores(pictures, texts)
    with pytest.raises(ValueError, match="after_texts: wanted 9, one for each, got 4"):
        clip_directions(A, B, C, D[:4])
    with pytest.raises(ValueError, match="before_texts: wanted the 6 columns of before, got 3"):
        clip_directions(A, B, C[:, :3], D[:, :3])
