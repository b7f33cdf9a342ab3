"""Precision, recall, density and coverage against a brute force and the authors' package."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from prdc import compute_prdc

from cm3leon.evaluation.measures import manifold as module
from cm3leon.evaluation.measures.manifold import manifold


def brute_force(real, made, k):
    def distance(a, b):
        return float(np.sqrt(((a - b) ** 2).sum()))

    def reach(points, i):
        return sorted(distance(points[i], p) for j, p in enumerate(points) if j != i)[k - 1]

    balls = [[distance(r, m) < reach(real, i) for i, r in enumerate(real)] for m in made]
    back = [[distance(r, m) < reach(made, i) for i, m in enumerate(made)] for r in real]
    covered = [any(ball[i] for ball in balls) for i in range(len(real))]
    return (
        np.mean([any(ball) for ball in balls]),
        np.mean([any(ball) for ball in back]),
        np.sum(balls) / (k * len(made)),
        np.mean(covered),
    )


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 999), st.integers(1, 3), st.integers(4, 12), st.integers(4, 12))
def test_it_is_the_definition(seed, k, n, m):
    rng = np.random.default_rng(seed)
    real, made = rng.normal(size=(n, 3)), rng.normal(size=(m, 3)) * 0.8 + 0.3
    found = manifold(real, made, neighbours=k)
    np.testing.assert_allclose(found[:4], brute_force(real, made, k), rtol=1e-12)
    assert found.neighbours == k


@pytest.mark.parametrize("k", [3, 5])
def test_it_is_the_authors_package(k):
    rng = np.random.default_rng(0)
    real = rng.normal(size=(200, 16))
    made = real[rng.permutation(200)[:150]] * 0.9 + rng.normal(size=(150, 16)) * 0.4
    theirs = compute_prdc(real, made, k)
    wanted = [theirs[name] for name in ("precision", "recall", "density", "coverage")]
    np.testing.assert_allclose(manifold(real, made, neighbours=k)[:4], wanted, rtol=1e-12)


def test_parts_and_a_shift_of_both_change_nothing(monkeypatch):
    rng = np.random.default_rng(1)
    real, made = rng.normal(size=(60, 8)), rng.normal(size=(50, 8)) + 0.3
    whole = manifold(real, made)
    assert manifold(real + 1e6, made + 1e6) == whole
    monkeypatch.setattr(module, "_CELLS", 150)
    assert manifold(real, made) == whole


def test_copies_are_perfect_and_distant_ones_worthless():
    real = np.random.default_rng(2).normal(size=(50, 4))
    assert manifold(real, real)[:2] == (1, 1) and manifold(real, real).coverage == 1
    assert manifold(real, real + 100)[:4] == (0, 0, 0, 0)
    one = np.repeat(real[:1], 30, 0)  # always the same picture: good, but no variety
    found = manifold(real, one)
    assert found.precision == 1 and found.recall == 0 and found.coverage < 0.5


@pytest.mark.parametrize(
    ("real", "made", "k", "message"),
    [
        (np.zeros((5, 2)), np.zeros((9, 2)), 5, "real: wanted at least 6 rows, got 5"),
        (np.zeros((9, 2)), np.zeros((5, 2)), 5, "made: wanted at least 6 rows, got 5"),
        (np.zeros((9, 2)), np.zeros((9, 3)), 5, "made: wanted the 2 columns of real, got 3"),
        (np.zeros((9, 2)), np.full((9, 2), np.inf), 5, r"made\[0\]: wanted finite numbers"),
        (np.zeros((9, 2)), np.zeros((9, 2)), 0, "neighbours: wanted at least 1, got 0"),
    ],
)
def test_odd_inputs_are_named(real, made, k, message):
    with pytest.raises(ValueError, match=message):
        manifold(real, made, neighbours=k)
