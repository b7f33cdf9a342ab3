"""The exact index of a small memory bank, kept by key.

Takes a FAISS `IndexIDMap2`; gives the same members as `ApproximateIndex`, so that a bank need not
know which of the two it has. Paper 2.1 (arXiv 2309.02591).
"""

from typing import Any

import faiss
import numpy as np

from cm3_retrieval.index import search
from cm3_retrieval.index_plan import IndexConfig


class ExactIndex:
    """`Flat` under int64 keys."""

    vectors = None
    """Stand in the FAISS index itself."""

    def __init__(self, index: faiss.IndexIDMap2) -> None:
        """Wrap an index from `build_index`."""
        self.index: Any = index
        self.config = IndexConfig(factory="Flat", rescore=0)
        self._keys_changed()

    def _keys_changed(self) -> None:
        self.keys = faiss.vector_to_array(self.index.id_map)
        self.by_key = np.argsort(self.keys)

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
        """See `cm3_retrieval.index.search`."""
        return search(self.index, queries, k, threads=threads)

    def vectors_at(self, rows: np.ndarray) -> np.ndarray:
        """Return (len(rows), dim) float32."""
        return self.index.reconstruct_batch(self.keys[rows])

    def append(self, vectors: np.ndarray, keys: np.ndarray) -> None:
        """Add rows at the end."""
        self.index.add_with_ids(vectors, keys)
        self._keys_changed()

    def delete(self, rows: np.ndarray, *, threads: int = 1) -> None:
        """Remove rows; the others keep their order."""
        self.index.remove_ids(np.ascontiguousarray(self.keys[rows]))
        self._keys_changed()
