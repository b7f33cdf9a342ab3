import numpy as np
import pytest

from cm3_retrieval.index.exact import ExactIndex, build_index, search


def brute_force(vectors, keys, queries, k):
    scores = np.einsum("qd,nd->qn", queries, vectors)
    order = np.lexsort((np.broadcast_to(keys, scores.shape), -scores), axis=1)[:, :k]
    return np.take_along_axis(scores, order, 1), keys[order]


@pytest.mark.parametrize("queries", [1, 19, 300])  # FAISS changes its path at 20 queries
@pytest.mark.parametrize("k", [1, 10, 500])
def test_agrees_with_numpy(unit_vectors, queries, k):
    vectors, asked = unit_vectors(500, 24), unit_vectors(queries, 24, seed=1)
    keys = np.random.default_rng(2).permutation(10_000)[:500]
    scores, found = search(build_index(vectors, keys), asked, k)
    wanted_scores, wanted = brute_force(vectors, keys, asked, k)
    assert scores.dtype == np.float32 and found.dtype == np.int64
    np.testing.assert_allclose(scores, wanted_scores, atol=1e-6)
    # Neighbouring scores may differ by less than rounding: compare the scores of the keys found.
    true = {key: row for row, key in enumerate(keys)}
    rows = np.vectorize(true.__getitem__)(found)
    np.testing.assert_allclose(
        np.einsum("qd,qkd->qk", asked, vectors[rows]), wanted_scores, atol=1e-6
    )
    assert (found == wanted).mean() > 0.99


@pytest.mark.parametrize("queries", [1, 40])
@pytest.mark.parametrize("k", [1, 3, 30, 119])
def test_ties_go_by_key_even_across_the_edge(unit_vectors, queries, k):
    vectors = np.repeat(unit_vectors(4, 8), 30, axis=0)
    keys = np.random.default_rng(0).permutation(1000)[:120]
    asked = unit_vectors(queries, 8, seed=1)
    _, found = search(build_index(vectors, keys), asked, k)
    _, wanted = brute_force(vectors, keys, asked, k)
    np.testing.assert_array_equal(found, wanted)


def test_a_query_is_answered_alike_alone_and_in_a_batch(unit_vectors):
    index = build_index(unit_vectors(400, 33), np.arange(400))
    asked = unit_vectors(64, 33, seed=1)
    together = search(index, asked, 7)
    alone = [search(index, asked[row : row + 1], 7) for row in range(64)]
    np.testing.assert_array_equal(together[0], np.concatenate([scores for scores, _ in alone]))
    np.testing.assert_array_equal(together[1], np.concatenate([keys for _, keys in alone]))


def test_no_queries(unit_vectors):
    scores, keys = search(build_index(unit_vectors(5, 4), np.arange(5)), np.empty((0, 4)), 2)
    assert scores.shape == keys.shape == (0, 2)


@pytest.mark.parametrize(
    ("queries", "k", "message"),
    [
        (np.full((1, 4), np.nan), 1, "queries: wanted finite numbers, got NaN"),
        (np.ones((1, 5)), 1, r"queries: wanted shape \(N, 4\), got \(1, 5\)"),
        (np.ones(4), 1, r"got \(4,\)"),
        (np.ones((1, 4), int), 1, "wanted floats, got int64"),
        (np.ones((1, 4)), 6, "k: wanted 1 to 5, the number of rows, got 6"),
        (np.ones((1, 4)), 0, "got 0"),
    ],
)
def test_wrong_queries(unit_vectors, queries, k, message):
    index = build_index(unit_vectors(5, 4), np.arange(5))
    with pytest.raises(ValueError, match=message):
        search(index, queries, k)


def test_empty_index():
    index = build_index(np.empty((0, 4)), np.empty(0, np.int64))
    with pytest.raises(ValueError, match="got an empty index"):
        search(index, np.ones((1, 4)), 1)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ([0, 1, 1], "wanted each key once, got 1 twice"),
        ([0, -1, 2], "wanted keys of at least 0, got -1"),
        ([0.0, 1.0, 2.0], "wanted N integers, got float64"),
        ([0, 1], "wanted 3, one a vector, got 2"),
    ],
)
def test_wrong_keys(unit_vectors, keys, message):
    with pytest.raises(ValueError, match=message):
        build_index(unit_vectors(3, 4), np.array(keys))


def test_after_delete_and_append_it_is_an_index_of_the_rest(unit_vectors):
    vectors, keys = unit_vectors(60, 8), np.random.default_rng(0).permutation(999)[:60]
    index = ExactIndex(build_index(vectors[:50], keys[:50]))
    index.delete(np.array([3, 0, 49]))
    index.append(vectors[50:], keys[50:])
    rows = np.setdiff1d(np.arange(60), [3, 0, 49])
    np.testing.assert_array_equal(index.keys, keys[rows])
    np.testing.assert_array_equal(index.vectors_at(np.array([0, -1])), vectors[rows[[0, -1]]])
    peer = search(build_index(vectors[rows], keys[rows]), vectors, 9)
    for ours, theirs in zip(index.search(vectors, 9), peer, strict=True):
        np.testing.assert_array_equal(ours, theirs)
