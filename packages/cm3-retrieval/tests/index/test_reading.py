import faiss
import numpy as np
import pytest

from cm3_retrieval.index.reading import index_from_bytes, read_index

COUNT, DIM = 3000, 32


@pytest.mark.parametrize("way", ["bytes", "file", "mapped"])
@pytest.mark.parametrize(
    "factory",
    [
        "IVF16,PQ8x4fs",
        "IVF16,PQ8x4fsr",
        "IVF16,PQ8x4fs_64",
        "IVF16_HNSW8,PQ8x4fs",
        "PCA16,IVF16,PQ8x4fs",
        "L2norm,IVF16,PQ8x4fs",
        "IVF16,RQ4x4fs",
        "IVF16,LSQ4x4fs",
        "IVF16,PRQ2x2x4fs",
        "IVF16,RaBitQfs",
        "PQ8x4fs",
        "IVF16,SQ8",
        "HNSW8",
    ],
)
def test_what_was_read_reconstructs_and_answers_as_what_was_written(
    unit_vectors, tmp_path, factory, way
):
    """FAISS 1.15.1 kills the process at the first of these calls for the IVF fast-scan kinds."""
    vectors = unit_vectors(COUNT, DIM)
    index = faiss.index_factory(DIM, factory, faiss.METRIC_INNER_PRODUCT)
    index.train(vectors)
    index.add(vectors)
    if way == "bytes":
        read = index_from_bytes(faiss.serialize_index(index))
    else:
        faiss.write_index(index, str(tmp_path / "i.faiss"))
        read = read_index(tmp_path / "i.faiss", mmap=way == "mapped")
    rows = np.array([0, 1500, COUNT - 1])
    for one in (index, read):
        ivf = faiss.try_extract_index_ivf(one)
        if ivf is not None:
            ivf.make_direct_map(True)
    np.testing.assert_array_equal(read.reconstruct_batch(rows), index.reconstruct_batch(rows))
    for ours, theirs in zip(read.search(vectors[:9], 4), index.search(vectors[:9], 4), strict=True):
        np.testing.assert_array_equal(ours, theirs)
