"""Exact inner-product search over FAISS, for vectors under int64 keys.

Takes (N, dim) vectors and N keys; gives scores and keys, best first. Paper 2.1 (arXiv 2309.02591):
maximum inner product over the memory bank.
"""

from typing import Any

import faiss
import numpy as np

from cm3_retrieval.index.checks import checked_keys, checked_search, checked_vectors
from cm3_retrieval.index.config import IndexConfig
from cm3_retrieval.index.rows import KeyRows
from cm3_retrieval.index.threads import FaissThreads

_TIE_TOLERANCE = 1e-5
"""Scores closer than this may be equal: it is above float32's rounding of a product of unit
vectors."""

_BLOCK = 1024
"""Queries searched at once."""


class ExactIndex:
    """FAISS's `Flat` index under int64 keys, with the members of `ApproximateIndex`."""

    vectors = None
    """None: the FAISS index itself holds the vectors."""

    def __init__(self, index: faiss.IndexIDMap2) -> None:
        """Wrap an index from `build_index`."""
        self.index: Any = index
        self.config = IndexConfig(factory="Flat", rescore=0)
        self._rows = KeyRows(faiss.vector_to_array(index.id_map))

    @property
    def keys(self) -> np.ndarray:
        """(N,) int64, the key of each row."""
        return self._rows.keys

    def rows_of(self, keys: np.ndarray) -> np.ndarray:
        """Return the row of each key, -1 where there is none."""
        return self._rows.rows_of(keys)

    @property
    def ntotal(self) -> int:
        """Number of documents."""
        return self.index.ntotal

    @property
    def d(self) -> int:
        """Length of a vector."""
        return self.index.d

    def search(
        self, queries: np.ndarray, k: int, *, threads: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        """Search as the function `search` does."""
        return search(self.index, queries, k, threads=threads)

    def vectors_at(self, rows: np.ndarray) -> np.ndarray:
        """Return (len(rows), dim) float32."""
        return self.index.reconstruct_batch(self.keys[rows])

    def append(self, vectors: np.ndarray, keys: np.ndarray) -> None:
        """Add rows at the end."""
        self.index.add_with_ids(vectors, keys)
        self._rows.append(keys)

    def delete(self, rows: np.ndarray, *, threads: int = 1) -> None:
        """Remove rows; the others keep their order."""
        self.index.remove_ids(np.ascontiguousarray(self.keys[rows]))
        self._rows = KeyRows(faiss.vector_to_array(self.index.id_map))


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

    The order is score descending, then key ascending. Scores are recomputed from the stored
    vectors, pair by pair, so neither scores nor order depend on the rest of the batch.

    Args:
        index: From `build_index`.
        queries: (Q, dim) floats.
        k: 1 to the number of rows.
        threads: FAISS's threads. Keep it small beside a training job in the same process: torch
            and FAISS each have a pool of their own.

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
    """Fetch `width` rows for each query, recompute their scores and keep the k best."""
    flat: Any = faiss.downcast_index(index.index)
    rough, rows = flat.search(queries, width)
    scores = np.empty_like(rough)
    faiss.fvec_inner_products_by_idx(  # pyright: ignore[reportAttributeAccessIssue]
        faiss.swig_ptr(scores),
        faiss.swig_ptr(queries),
        flat.get_xb(),
        faiss.swig_ptr(rows),
        index.d,
        *rows.shape,
    )
    keys = faiss.rev_swig_ptr(index.id_map.data(), index.ntotal)[rows]
    scores, keys = _in_order(scores, keys)
    scores, keys = scores[:, :k].copy(), keys[:, :k].copy()
    if width < index.ntotal:
        # Copies of one document tie, and `width` may cut through such a tie: look further until
        # the last row is clearly worse than the k-th. Half the queries at twice the width need
        # the same memory.
        tied = np.flatnonzero(rough[:, -1] > rough[:, k - 1] - _TIE_TOLERANCE)
        for rows in np.array_split(tied, 2):
            if len(rows):
                wider = min(2 * width, index.ntotal)
                scores[rows], keys[rows] = _search_block(index, queries[rows], k, wider)
    return scores, keys


def _in_order(scores: np.ndarray, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sort each row by score descending, then key ascending."""
    order = np.argsort(-scores, axis=1)
    scores, keys = np.take_along_axis(scores, order, 1), np.take_along_axis(keys, order, 1)
    tied = np.flatnonzero((scores[:, 1:] == scores[:, :-1]).any(axis=1))
    if len(tied):
        order = np.lexsort((keys[tied], -scores[tied]), axis=1)
        keys[tied] = np.take_along_axis(keys[tied], order, 1)
    return scores, keys
