import numpy as np
import pytest

from cm3_retrieval.index.checks import (
    checked_keys,
    checked_lengths,
    checked_search,
    checked_vectors,
)


def test_good_arrays_come_back_in_faiss_types():
    vectors = checked_vectors("v", np.eye(3)[:, ::-1], 3)
    assert vectors.dtype == np.float32 and vectors.flags.c_contiguous
    np.testing.assert_array_equal(vectors, np.eye(3)[:, ::-1])
    keys = checked_keys("k", np.array([3, 2**40, 0], np.uint64))
    assert keys.dtype == np.int64 and keys.tolist() == [3, 2**40, 0]
    assert checked_keys("k", []).dtype == np.int64
    checked_lengths("v", vectors)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_of_every_size_are_taken_without_a_warning(dtype):
    largest = np.full((1, 2), min(1e15, float(np.finfo(dtype).max)), dtype)
    np.testing.assert_array_equal(checked_vectors("v", largest), largest.astype(np.float32))
    for value in (np.inf, np.nan):
        with pytest.raises(ValueError, match="v: wanted finite numbers, got NaN or infinity in"):
            checked_vectors("v", np.full((1, 2), value, dtype))


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (np.ones(4), r"v: wanted shape \(N, 4\), got \(4,\)"),
        (np.ones((2, 3)), r"v: wanted shape \(N, 4\), got \(2, 3\)"),
        (np.ones((2, 4), int), "v: wanted floats, got int64"),
        (np.array([[0.0] * 4, [0, np.inf, 0, 0]]), "v: .* got NaN or infinity in row 1"),
    ],
)
def test_wrong_vectors(vectors, message):
    with pytest.raises(ValueError, match=message):
        checked_vectors("v", vectors, 4)


def test_a_wrong_row_is_found_beyond_the_first_block():
    vectors = np.full((70_000, 1), 1, np.float32)
    vectors[66_000] = np.nan
    with pytest.raises(ValueError, match="in row 66000"):
        checked_vectors("v", vectors)
    vectors[66_000] = 2
    with pytest.raises(ValueError, match="v: wanted rows of length 1, got 2.0000 in 66000"):
        checked_lengths("v", vectors)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ([0, 1, 1], "k: wanted each key once, got 1 twice"),
        ([0, -1, 2], "k: wanted keys of at least 0, got -1"),
        ([0.0, 1.0], "k: wanted N integers, got float64"),
        ([[0, 1]], r"k: wanted N integers, got int64 of shape \(1, 2\)"),
    ],
)
def test_wrong_keys(keys, message):
    with pytest.raises(ValueError, match=message):
        checked_keys("k", np.array(keys))


def test_a_search_needs_rows_and_k_among_them():
    assert checked_search(np.ones((1, 2)), 3, 2, 3).dtype == np.float32
    for k in (0, 4):
        with pytest.raises(ValueError, match=f"k: wanted 1 to 3, the number of rows, got {k}"):
            checked_search(np.ones((1, 2)), k, 2, 3)
    with pytest.raises(ValueError, match="got an empty index"):
        checked_search(np.ones((1, 2)), 1, 2, 0)
