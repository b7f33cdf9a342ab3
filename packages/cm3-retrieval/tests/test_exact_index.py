import numpy as np

from cm3_retrieval.exact_index import ExactIndex
from cm3_retrieval.index import build_index, search


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
