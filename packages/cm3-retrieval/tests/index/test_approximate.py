import faiss
import numpy as np
import pytest

from cm3_retrieval.index.approximate import build_approximate, train_index
from cm3_retrieval.index.config import IndexConfig
from cm3_retrieval.index.exact import build_index, search

FACTORIES = [
    "IVF16,PQ16x4fs",
    "IVF16,PQ8",
    "IVF16,Flat",
    "IVF16,SQ8",
    "HNSW16",
    "HNSW16,SQ8",
    "PQ8",
]
COUNT, DIM = 3000, 32


@pytest.fixture(scope="module")
def clustered():
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((20, DIM))[rng.integers(20, size=COUNT)]
    vectors = vectors + 0.6 * rng.standard_normal((COUNT, DIM))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32), rng.choice(10**9, COUNT, replace=False)


def recall(found, true):
    return np.mean([len(set(a) & set(b)) / len(b) for a, b in zip(found, true, strict=True)])


@pytest.mark.parametrize("factory", FACTORIES)
def test_it_finds_what_exact_search_finds(clustered, factory):
    vectors, keys = clustered
    index = build_approximate(vectors, keys, IndexConfig(factory=factory, nprobe=8))
    queries = vectors[::30]
    scores, found = index.search(queries, 10)
    true_scores, true = search(build_index(vectors, keys), queries, 10)
    assert recall(found, true) > 0.9
    assert scores.dtype == np.float32 and found.dtype == np.int64
    assert (np.diff(scores, axis=1) <= 0).all()
    row = {key: place for place, key in enumerate(keys)}
    own = np.einsum("qd,qkd->qk", queries, vectors[np.vectorize(row.__getitem__)(found)])
    np.testing.assert_allclose(scores, own, atol=1e-5)  # the scores are exact
    assert true_scores[0, 0] == pytest.approx(scores[0, 0], abs=1e-5)


def test_without_rescoring_it_is_what_faiss_says(clustered):
    vectors, keys = clustered
    index = build_approximate(vectors, keys, IndexConfig(factory="IVF16,PQ8", rescore=0, nprobe=4))
    peer_scores, peer_rows = index.index.search(vectors[:50], 5)
    scores, found = index.search(vectors[:50], 5)
    np.testing.assert_array_equal(found[:, 0], keys[peer_rows[:, 0]])
    np.testing.assert_array_equal(scores, peer_scores)
    assert index.vectors is None
    assert index.vectors_at(np.arange(3)).shape == (3, DIM)


def test_rescoring_is_what_faiss_refining_says(clustered):
    vectors, keys = clustered
    index = build_approximate(vectors, keys, IndexConfig(factory="IVF16,PQ8", rescore=4, nprobe=4))
    flat = faiss.IndexFlatIP(DIM)
    flat.add(vectors)
    peer = faiss.IndexRefine(index.index, flat)
    peer.k_factor = 4
    for batch in (1, 40):
        scores, found = index.search(vectors[:batch], 10)
        peer_scores, peer_rows = peer.search(vectors[:batch], 10)
        np.testing.assert_allclose(scores, peer_scores, atol=1e-6)
        assert (found == keys[peer_rows]).mean() > 0.99


@pytest.mark.parametrize("factory", FACTORIES)
def test_delete_and_append_in_turns_answer_as_exact_search(clustered, factory):
    vectors, keys = clustered
    index = build_approximate(vectors, keys, IndexConfig(factory=factory, nprobe=16))
    inside = np.arange(COUNT)  # rows of `vectors`, in the index's order
    rng = np.random.default_rng(1)
    for _ in range(3):
        gone = rng.permutation(COUNT)[:700]
        rows = np.flatnonzero(np.isin(inside, gone))
        index.delete(rows)
        inside = np.delete(inside, rows)
        check_against_exact(index, vectors, keys, inside, gone[:60])
        index.append(vectors[gone], keys[gone])
        inside = np.concatenate([inside, gone])
        check_against_exact(index, vectors, keys, inside, gone[:60])
        found = index.search(vectors[gone[:60]], 1)[1][:, 0]
        assert (found == keys[gone[:60]]).mean() > 0.9


def check_against_exact(index, vectors, keys, inside, queries) -> None:
    np.testing.assert_array_equal(index.keys, keys[inside])
    assert index.ntotal == len(inside)
    scores, found = index.search(vectors[queries], 10)
    exact = build_index(vectors[inside], keys[inside])
    assert recall(found, search(exact, vectors[queries], 10)[1]) > 0.9
    places = np.argsort(keys)[np.searchsorted(np.sort(keys), found)]
    own = np.einsum("qd,qkd->qk", vectors[queries], vectors[places])
    np.testing.assert_allclose(scores, own, atol=1e-5)
    some = np.array([5, len(inside) - 1])
    np.testing.assert_allclose(index.vectors_at(some), vectors[inside[some]], atol=0.05)


@pytest.mark.parametrize("factory", ["IVF16,PQ16x4fs", "IVF16,PQ8", "HNSW16,SQ8"])
def test_delete_and_append_without_whole_vectors(clustered, factory):
    """What is left keeps its place; what comes back is found as it was before."""
    vectors, keys = clustered
    index = build_approximate(vectors, keys, IndexConfig(factory=factory, nprobe=16, rescore=0))
    before = recall(index.search(vectors[::30], 10)[1], true_keys(vectors, keys, vectors[::30]))
    gone = np.arange(0, COUNT, 3)
    index.delete(gone)
    assert not np.isin(index.search(vectors[gone], 10)[1], keys[gone]).any()
    index.append(vectors[gone], keys[gone])
    after = recall(index.search(vectors[::30], 10)[1], true_keys(vectors, keys, vectors[::30]))
    assert after > before - 0.05


def true_keys(vectors, keys, queries):
    return search(build_index(vectors, keys), queries, 10)[1]


@pytest.mark.parametrize("factory", ["IVF16,PQ16x4fs", "IVF64,Flat", "HNSW16"])
def test_k_beyond_what_the_cells_hold_is_found_all_the_same(clustered, factory):
    vectors, keys = clustered
    index = build_approximate(vectors, keys, IndexConfig(factory=factory, nprobe=1, ef_search=8))
    scores, found = index.search(vectors[:2], COUNT)
    for row in range(2):
        assert sorted(found[row].tolist()) == sorted(keys.tolist())
    assert (np.diff(scores, axis=1) <= 1e-6).all()


def test_ties_go_by_key(unit_vectors):
    vectors = np.repeat(unit_vectors(8, 16), 20, axis=0)
    keys = np.random.default_rng(0).permutation(1000)[:160]
    index = build_approximate(vectors, keys, IndexConfig(factory="IVF2,Flat", nprobe=2))
    found = index.search(vectors[:1], 20)[1][0]
    assert found.tolist() == sorted(keys[:20].tolist())


def test_two_builds_are_alike(clustered):
    vectors, keys = clustered
    config = IndexConfig(factory="IVF16,PQ8x4fs", train_rows=1000)
    one, two = (build_approximate(vectors, keys, config) for _ in range(2))
    assert np.array_equal(faiss.serialize_index(one.index), faiss.serialize_index(two.index))


def test_too_few_vectors_for_the_index(unit_vectors):
    with pytest.raises(ValueError, match="could not be trained on 10 vectors"):
        train_index(unit_vectors(10, 16), IndexConfig(factory="IVF64,PQ8"))


@pytest.mark.parametrize(
    ("queries", "k", "message"),
    [
        (np.full((1, DIM), np.nan), 1, "queries: wanted finite numbers"),
        (np.ones((1, 5)), 1, r"queries: wanted shape \(N, 32\), got \(1, 5\)"),
        (np.ones((1, DIM)), COUNT + 1, "k: wanted 1 to 3000"),
        (np.ones((1, DIM)), 0, "k: wanted 1 to 3000"),
    ],
)
def test_wrong_queries(clustered, queries, k, message):
    index = build_approximate(*clustered, IndexConfig(factory="IVF16,SQ8"))
    with pytest.raises(ValueError, match=message):
        index.search(queries, k)
    scores, keys = index.search(np.empty((0, DIM)), 3)
    assert scores.shape == keys.shape == (0, 3)
