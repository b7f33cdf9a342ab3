"""FID and KID against torch-fidelity's own functions on the same features."""

import numpy as np
import pytest
import torch
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric

from cm3leon.evaluation.measures.frechet import fid, kid


def features(count, width=24, seed=0, shift=0.0):
    rng = np.random.default_rng(seed)
    mix = np.random.default_rng(9).normal(size=(width, width))
    return np.maximum(rng.normal(size=(count, width)) @ mix + shift, 0)  # many zeros, as pooled


def their_fid(one, other):
    stats = [fid_features_to_statistics(torch.from_numpy(rows)) for rows in (one, other)]
    return fid_statistics_to_metric(*stats, verbose=False)["frechet_inception_distance"]


@pytest.mark.parametrize(("counts", "deficient"), [((300, 200), False), ((12, 20), True)])
def test_fid_is_torch_fidelitys(counts, deficient):
    one, other = features(counts[0]), features(counts[1], seed=1, shift=0.5)
    found = fid(one, other)
    assert found.distance == pytest.approx(their_fid(one, other), rel=1e-6)
    assert found.pictures == counts and found.rank_deficient is deficient
    assert fid(other, one).distance == pytest.approx(found.distance, rel=1e-9)


def test_fid_of_the_same_is_0_and_grows_with_a_shift():
    one = features(200)
    distances = [fid(one, one + shift).distance for shift in (0, 0.1, 1)]
    assert distances == pytest.approx([0, 24 * 0.01, 24], abs=1e-6)
    assert fid(one, one[::-1]).distance == pytest.approx(0, abs=1e-6)


def test_kid_is_torch_fidelitys():
    one, other = features(150), features(120, seed=1, shift=0.3)
    found = kid(one, other, subsets=20, subset_size=50)
    theirs = kid_features_to_metric(
        torch.from_numpy(one),
        torch.from_numpy(other),
        kid_subsets=20,
        kid_subset_size=50,
        verbose=False,
    )
    assert found.mean == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-9)
    assert found.std == pytest.approx(theirs["kernel_inception_distance_std"], rel=1e-9)
    assert found[2:] == (20, 50)


def test_kid_depends_on_its_seed_alone_and_is_about_0_of_the_same_distribution():
    one, other = features(300), features(300, seed=1)
    first = kid(one, other, subsets=5, subset_size=100, seed=3)
    assert first == kid(one, other, subsets=5, subset_size=100, seed=3)
    assert first != kid(one, other, subsets=5, subset_size=100, seed=4)
    far = kid(one, other + 3, subsets=5, subset_size=100)
    assert abs(first.mean) < 0.02 * far.mean


@pytest.mark.parametrize("measure", [fid, kid])
@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (features(9)[:1], features(9), "first: wanted at least (2|1000) rows"),
        (features(9), features(9, 23), "second: wanted the 24 columns of first, got 23"),
        (features(9), np.full((9, 24), np.nan), r"second\[0\]: wanted finite numbers, got NaN"),
        (features(9)[0], features(9), r"first: wanted numbers \(N, D\), got float64 \(24,\)"),
        (np.array([["a"]]), features(9), r"first: wanted numbers \(N, D\)"),
    ],
)
def test_odd_features_are_named(measure, first, second, message):
    with pytest.raises(ValueError, match=message):
        measure(first, second)


def test_odd_settings_are_named():
    with pytest.raises(ValueError, match=r"second: wanted at least 60 rows \(subset_size\), got 5"):
        kid(features(60), features(5), subset_size=60)
    with pytest.raises(ValueError, match="subsets, subset_size: wanted"):
        kid(features(60), features(60), subset_size=1)
