"""A thin layer over FAISS: exact inner-product search over vectors under int64 keys.

Takes (N, dim) vectors and N keys; gives scores and keys, best first. Paper 2.1 (arXiv 2309.02591):
maximum inner product over the memory bank.
"""

import faiss
import numpy as np

_TIE_TOLERANCE = 1e-5
"""Above float32's rounding of a product of unit vectors; FAISS's scores within it may be one."""

_BLOCK = 1024
"""Queries searched at once."""

_CHECKED_ROWS = 65536
"""Rows looked at in one step of a check."""


def checked_vectors(name: str, vectors: np.ndarray, dim: int | None = None) -> np.ndarray:
    """Return `vectors` as contiguous float32 (N, dim), or raise a ValueError that says why not."""
    array = np.asarray(vectors)
    if array.ndim != 2 or array.shape[1] == 0 or (dim is not None and array.shape[1] != dim):
        wanted = f"(N, {'dim' if dim is None else dim})"
        raise ValueError(f"{name}: wanted shape {wanted}, got {array.shape}")
    if array.dtype.kind != "f":
        raise ValueError(f"{name}: wanted floats, got {array.dtype}")
    for start in range(0, len(array), _CHECKED_ROWS):  # in blocks: no second copy of a large array
        finite = np.isfinite(array[start : start + _CHECKED_ROWS])
        if not finite.all():
            row = start + int(np.flatnonzero(~finite.all(axis=1))[0])
            raise ValueError(f"{name}: wanted finite numbers, got NaN or infinity in row {row}")
    return np.ascontiguousarray(array, dtype=np.float32)


def checked_lengths(name: str, vectors: np.ndarray) -> None:
    """Raise a ValueError unless every row of float32 (N, dim) `vectors` has length 1."""
    for start in range(0, len(vectors), _CHECKED_ROWS):
        block = vectors[start : start + _CHECKED_ROWS]
        lengths = np.sqrt(np.einsum("nd,nd->n", block, block))
        wrong = np.abs(lengths - 1)
        if (wrong > 1e-3).any():
            row = int(wrong.argmax())
            raise ValueError(
                f"{name}: wanted rows of length 1, got {lengths[row]:.4f} in {start + row}"
            )


def checked_keys(name: str, keys: np.ndarray) -> np.ndarray:
    """Return `keys` as int64 (N,), all at least 0 and no two alike, or raise a ValueError."""
    array = np.asarray(keys)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise ValueError(f"{name}: wanted N integers, got {array.dtype} of shape {array.shape}")
    array = array.astype(np.int64)
    if (array < 0).any():
        raise ValueError(f"{name}: wanted keys of at least 0, got {int(array.min())}")
    unique, counts = np.unique(array, return_counts=True)
    if (counts > 1).any():
        raise ValueError(f"{name}: wanted each key once, got {int(unique[counts > 1][0])} twice")
    return array


def checked_search(queries: np.ndarray, k: int, dim: int, count: int) -> np.ndarray:
    """Return queries as `checked_vectors` does, for an index of `count` rows of `dim` numbers."""
    queries = checked_vectors("queries", queries, dim)
    if count == 0:
        raise ValueError("index: wanted at least one row to search, got an empty index")
    if not 1 <= k <= count:
        raise ValueError(f"k: wanted 1 to {count}, the number of rows, got {k}")
    return queries


class FaissThreads:
    """Sets FAISS's threads for a `with` block.

    FAISS sets the count of the whole process's OpenMP, torch's too: the block gives back what was
    there.
    """

    def __init__(self, threads: int) -> None:
        """Take the number of threads inside the block."""
        self._threads = threads

    def __enter__(self) -> None:
        """Set the count."""
        self._before = faiss.omp_get_max_threads()
        if self._before != self._threads:
            faiss.omp_set_num_threads(self._threads)

    def __exit__(self, *_: object) -> None:
        """Set the old count again."""
        if self._before != self._threads:
            faiss.omp_set_num_threads(self._before)


def build_index(vectors: np.ndarray, keys: np.ndarray) -> faiss.IndexIDMap2:
    """Build an exact inner-product index.

    Args:
        vectors: (N, dim) floats.
        keys: (N,) integers of at least 0, all different.

    Returns:
        A FAISS `IndexIDMap2` over `IndexFlatIP`.
    """
    vectors = checked_vectors("vectors", vectors)
    keys = checked_keys("keys", keys)
    if len(keys) != len(vectors):
        raise ValueError(f"keys: wanted {len(vectors)}, one a vector, got {len(keys)}")
    index = faiss.IndexIDMap2(faiss.IndexFlatIP(vectors.shape[1]))
    index.add_with_ids(vectors, keys)  # pyright: ignore[reportCallIssue]
    return index


def search(
    index: faiss.IndexIDMap2, queries: np.ndarray, k: int, *, threads: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Find the k keys with the largest inner product for each query.

    Order is (score descending, key ascending). Scores are computed anew from the stored vectors,
    pair by pair, so neither scores nor order depend on what else is in the batch.

    Args:
        index: From `build_index`.
        queries: (Q, dim) floats.
        k: 1 to the number of rows.
        threads: FAISS's threads. Beside a training job in the same process keep it small: torch
            and FAISS each bring a pool.

    Returns:
        (Q, k) float32 scores and (Q, k) int64 keys.
    """
    queries = checked_search(queries, k, index.d, index.ntotal)
    width = min(k + 16, index.ntotal)
    with FaissThreads(threads):
        blocks = [
            _search_block(index, queries[start : start + _BLOCK], k, width)
            for start in range(0, len(queries), _BLOCK)
        ]
    scores = np.concatenate([np.empty((0, k), np.float32), *(block[0] for block in blocks)])
    found = np.concatenate([np.empty((0, k), np.int64), *(block[1] for block in blocks)])
    return scores, found


def _search_block(
    index: faiss.IndexIDMap2, queries: np.ndarray, k: int, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Fetch `width` rows for each query, score them anew and keep the k best."""
    rough, keys = index.search(queries, width)  # pyright: ignore[reportCallIssue]
    stored = index.reconstruct_batch(keys.ravel()).reshape(*keys.shape, index.d)  # (Q, width, dim)
    scores = np.einsum("qd,qwd->qw", queries, stored)
    order = np.lexsort((keys, -scores), axis=1)[:, :k]  # (Q, k), np.lexsort's last key goes first
    scores, keys = np.take_along_axis(scores, order, 1), np.take_along_axis(keys, order, 1)
    if width < index.ntotal:
        # Copies of one document tie, and the edge of `width` may cut through such a tie: look
        # further until the last row is clearly worse than the k-th. Half the queries at twice
        # the width keeps the memory where it was.
        tied = np.flatnonzero(rough[:, -1] > rough[:, k - 1] - _TIE_TOLERANCE)
        for rows in np.array_split(tied, 2):
            if len(rows):
                wider = min(2 * width, index.ntotal)
                scores[rows], keys[rows] = _search_block(index, queries[rows], k, wider)
    return scores, keys
