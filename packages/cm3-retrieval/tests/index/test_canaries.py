from pathlib import Path

import numpy as np
import pytest

from cm3_retrieval.index.approximate import build_approximate
from cm3_retrieval.index.canaries import check_canaries, make_canaries
from cm3_retrieval.index.config import IndexConfig
from cm3_retrieval.index.exact import ExactIndex, build_index


def test_an_index_answers_its_own_canaries_and_another_does_not(unit_vectors):
    keys = np.arange(500) + 7
    vectors, path = unit_vectors(500, 8), Path("index.faiss")
    exact = ExactIndex(build_index(vectors, keys))
    near = build_approximate(vectors, keys, IndexConfig(factory="IVF4,Flat", nprobe=4))
    canaries = make_canaries(exact)
    assert [canary["key"] for canary in canaries] == [7, 256, 506]
    check_canaries(exact, canaries, path)
    check_canaries(near, canaries, path)
    other = ExactIndex(build_index(unit_vectors(500, 8, seed=1), keys))
    with pytest.raises(ValueError, match=r"index.faiss: the search for the document under key 7"):
        check_canaries(other, canaries, path)


def test_an_empty_index_has_none():
    assert make_canaries(ExactIndex(build_index(np.empty((0, 4)), np.empty(0, int)))) == []
