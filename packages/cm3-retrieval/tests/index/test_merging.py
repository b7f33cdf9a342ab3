import faiss
import numpy as np
import pytest

from cm3_retrieval.index.approximate import (
    add_rows,
    build_approximate,
    set_search_width,
    train_index,
)
from cm3_retrieval.index.config import IndexConfig
from cm3_retrieval.index.merging import as_trained, merge_indexes, shard_index

COUNT, DIM = 3000, 32


@pytest.mark.parametrize("factory", ["IVF16,PQ8x4fs", "IVF16_HNSW8,PQ8x4fs", "IVF16,SQ8", "SQ8"])
def test_merged_shards_answer_as_the_whole(unit_vectors, factory):
    vectors = unit_vectors(COUNT, DIM)
    config = IndexConfig(factory=factory, nprobe=4, train_rows=2000)
    whole = build_approximate(vectors, np.arange(COUNT), config)
    trained = faiss.serialize_index(train_index(vectors, config))
    parts = []
    for rows in np.array_split(np.arange(COUNT), [700, 700, 1901]):
        empty = faiss.deserialize_index(trained)
        part = shard_index(empty)
        add_rows(part, vectors[rows])
        parts.append(faiss.deserialize_index(faiss.serialize_index(part)))
    index = as_trained(merge_indexes(parts), faiss.deserialize_index(trained))
    assert index.ntotal == COUNT and type(index) is type(whole.index)
    set_search_width(index, config)
    for ours, theirs in zip(
        index.search(vectors[:200], 10), whole.index.search(vectors[:200], 10), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


def test_what_cannot_be_merged(unit_vectors):
    vectors = unit_vectors(COUNT, DIM)
    with pytest.raises(ValueError, match="wanted at least one"):
        merge_indexes([])
    graphs = [
        build_approximate(vectors, np.arange(COUNT), IndexConfig(factory="HNSW8")).index
        for _ in range(2)
    ]
    with pytest.raises(ValueError, match="FAISS can merge IVF, not these"):
        merge_indexes(graphs)
    for factory in ("PQ8x4fs", "PCA16,IVF16,PQ8x4fs"):
        trained = train_index(vectors, IndexConfig(factory=factory))
        with pytest.raises(ValueError, match="wanted a fast-scan index of the form"):
            shard_index(trained)
        with pytest.raises(ValueError, match="got a fast-scan index"):
            merge_indexes([trained])
