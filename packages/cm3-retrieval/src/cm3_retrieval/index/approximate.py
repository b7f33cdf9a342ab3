"""Search over many documents: a FAISS index of shortened vectors, rescored with the full ones.

Takes vectors and keys; gives scores and keys, best first, as `cm3_retrieval.index.exact` does.
FAISS numbers documents by row; keys and full vectors lie beside it in arrays that may be
memory-mapped. Paper 2.1 (arXiv 2309.02591); IVF-PQ after doi:10.1109/TPAMI.2010.57, HNSW after
arXiv 1603.09320.
"""

from typing import Any

import faiss
import numpy as np

from cm3_retrieval.index.checks import checked_keys, checked_search
from cm3_retrieval.index.config import IndexConfig
from cm3_retrieval.index.plan import open_factory, plan_index
from cm3_retrieval.index.rows import GrowingRows, KeyRows
from cm3_retrieval.index.threads import FaissThreads

_COARSE_WIDTH = 256
"""Least width of the search for cells in a graph; FAISS's own 16 misses many of them."""

_ADDED_ROWS = 65_536
"""Rows given to FAISS at once, which bounds its temporary memory."""


class ApproximateIndex:
    """A trained FAISS index, the keys of its rows, and the full vectors where it has none."""

    def __init__(
        self,
        index: faiss.Index,
        keys: np.ndarray,
        vectors: np.ndarray | None,
        config: IndexConfig,
    ) -> None:
        """Wrap a finished index; `build_approximate` makes one.

        Args:
            index: FAISS index of N rows, numbered from 0.
            keys: (N,) int64, the key of each row.
            vectors: (N, dim) float32, or None when `config.rescore` is 0.
            config: Settings, all of them given, as `plan_index` returns them.
        """
        self.index: Any = index
        self._rows = KeyRows(keys)
        self._vectors = None if vectors is None else GrowingRows(vectors)
        self.set_config(config)

    def set_config(self, config: IndexConfig) -> None:
        """Take other settings for later searches; those of the building stay as they are."""
        self.config = config
        set_search_width(self.index, config)

    @property
    def ntotal(self) -> int:
        """Number of documents."""
        return self.index.ntotal

    @property
    def d(self) -> int:
        """Length of a vector."""
        return self.index.d

    @property
    def keys(self) -> np.ndarray:
        """(N,) int64, the key of each row."""
        return self._rows.keys

    @property
    def vectors(self) -> np.ndarray | None:
        """(N, dim) float32, or None where the index holds them or none are kept."""
        return None if self._vectors is None else self._vectors.rows

    def rows_of(self, keys: np.ndarray) -> np.ndarray:
        """Return the row of each key, -1 where there is none."""
        return self._rows.rows_of(keys)

    def search(
        self, queries: np.ndarray, k: int, *, threads: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        """Find k keys with large inner products for each query.

        Args:
            queries: (Q, dim) floats.
            k: 1 to the number of rows.
            threads: FAISS's threads.

        Returns:
            (Q, k) float32 scores and (Q, k) int64 keys; score descending, then key ascending.
            The scores are exact unless the index compresses vectors and `rescore` is 0.

        Raises:
            ValueError: Another shape, no floats, NaN, or k outside its range.
        """
        queries = checked_search(queries, k, self.d, self.ntotal)
        with FaissThreads(threads):
            scores, rows = self._nearest(queries, k)
            if len(rows) and rows[:, -1].min() < 0:  # the visited cells held fewer than k
                short = np.flatnonzero(rows[:, -1] < 0)
                scores[short], rows[short] = self._wider(queries[short], k)
        keys = self.keys[rows]
        if (scores[:, 1:] == scores[:, :-1]).any():
            order = np.lexsort((keys, -scores), axis=1)
            scores, keys = np.take_along_axis(scores, order, 1), np.take_along_axis(keys, order, 1)
        return scores, keys

    def vectors_at(self, rows: np.ndarray) -> np.ndarray:
        """Return (len(rows), dim) float32: full vectors, or what the index kept of them."""
        if self.vectors is not None:
            return np.ascontiguousarray(self.vectors[rows])
        if not len(rows):
            return np.empty((0, self.d), np.float32)
        ivf = faiss.try_extract_index_ivf(self.index)
        if ivf is not None:
            ivf.make_direct_map(True)
        return self.index.reconstruct_batch(np.ascontiguousarray(rows, np.int64))

    def append(self, vectors: np.ndarray, keys: np.ndarray) -> None:
        """Add rows at the end; an IVF index keeps the cells it was trained with."""
        _without_direct_map(self.index)
        add_rows(self.index, vectors)
        self._rows.append(keys)
        if self._vectors is not None:
            self._vectors.append(vectors)

    def delete(self, rows: np.ndarray, *, threads: int = 1) -> None:
        """Remove rows for good.

        Plain IVF drops them from its cells. All other indexes keep their training and add the
        remaining rows again: FAISS cannot remove a node from an HNSW graph, and a fast-scan index
        (`x4fs`) loses most rows that are added after a removal (seen with FAISS 1.15).
        """
        kept = np.ones(self.ntotal, bool)
        kept[rows] = False
        ivf = faiss.try_extract_index_ivf(self.index)
        if ivf is None or isinstance(faiss.downcast_index(ivf), faiss.IndexIVFFastScan):
            left = self.vectors_at(np.flatnonzero(kept))
            _without_direct_map(self.index)
            self.index.reset()
            with FaissThreads(threads):
                add_rows(self.index, left)
        else:
            _without_direct_map(self.index)
            self.index.remove_ids(np.ascontiguousarray(rows, np.int64))
            _renumber(ivf, kept)
        self._rows = KeyRows(self.keys[kept])
        if self._vectors is not None:
            self._vectors = GrowingRows(self._vectors.rows[kept])

    def _nearest(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        if self.vectors is None or not self.config.rescore:
            return self.index.search(queries, k)
        width = min(k * self.config.rescore, self.ntotal)
        rows = self.index.search(queries, width)[1]  # (Q, width)
        return self._best(queries, rows, self.vectors, k)

    def _best(
        self, queries: np.ndarray, rows: np.ndarray, vectors: np.ndarray, k: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Rank rows (Q, width) by their full vectors; a row of -1 goes last."""
        scores = np.full(rows.shape, -np.inf, np.float32)  # rows of -1 keep this
        faiss.fvec_inner_products_by_idx(  # pyright: ignore[reportAttributeAccessIssue]
            faiss.swig_ptr(scores),
            faiss.swig_ptr(queries),
            faiss.swig_ptr(vectors),
            faiss.swig_ptr(rows),
            self.d,
            *rows.shape,
        )
        if len(rows) == 1:  # one search is so fast that each NumPy call counts
            best = scores[0].argsort()[: -k - 1 : -1]
            return scores[:, best], rows[:, best]
        np.negative(scores, out=scores)
        if k < rows.shape[1]:
            places = scores.argpartition(k - 1, axis=1)[:, :k]  # (Q, k)
            scores, rows = (np.take_along_axis(array, places, 1) for array in (scores, rows))
        places = scores.argsort(axis=1)
        scores, rows = (np.take_along_axis(array, places, 1) for array in (scores, rows))
        return -scores, rows

    def _wider(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Search all cells or the whole graph, and by brute force where rows are still missing."""
        full = IndexConfig(factory=self.config.factory, nprobe=2**30, ef_search=self.ntotal)
        set_search_width(self.index, full)
        try:
            scores, rows = self._nearest(queries, k)
        finally:
            set_search_width(self.index, self.config)
        for place in np.flatnonzero((rows < 0).any(axis=1)):
            everything = np.arange(self.ntotal)
            exact = self.vectors_at(everything).dot(queries[place])
            order = np.lexsort((self.keys, -exact))[:k]
            scores[place], rows[place] = exact[order], order
        return scores, rows


def build_approximate(
    vectors: np.ndarray, keys: np.ndarray, config: IndexConfig, *, threads: int = 1
) -> ApproximateIndex:
    """Train an index on a sample and add all rows.

    Args:
        vectors: (N, dim) float32; kept, not copied, when the index rescores.
        keys: (N,) integers of at least 0, all different.
        config: Settings; `plan_index` fills in the missing ones.
        threads: FAISS's threads.

    Raises:
        ValueError: Fewer rows than the index has cells or a PQ piece has values.
    """
    plan = plan_index(len(vectors), vectors.shape[1], config)
    index = train_index(vectors, plan, threads=threads)
    with FaissThreads(threads):
        add_rows(index, vectors)
    return ApproximateIndex(
        index, checked_keys("keys", keys), vectors if plan.rescore else None, plan
    )


def train_index(vectors: np.ndarray, config: IndexConfig, *, threads: int = 1) -> faiss.Index:
    """Return an index without rows, trained on a random sample of `vectors` (N, dim).

    Raises:
        ValueError: Too few vectors for the index.
    """
    plan = plan_index(len(vectors), vectors.shape[1], config)
    index: Any = open_factory(plan.factory, vectors.shape[1])
    _set_build_width(index, plan)
    ivf = faiss.try_extract_index_ivf(index)
    if ivf is not None:
        _set_coarse_width(ivf, _COARSE_WIDTH)  # rows go to the cells in which a search looks
    if index.is_trained:
        return index
    inner: Any = index
    while isinstance(inner, faiss.IndexPreTransform):
        inner = faiss.downcast_index(inner.index)
    if hasattr(inner, "do_polysemous_training"):  # slow; serves only a search not used here
        inner.do_polysemous_training = False
    if ivf is not None:
        ivf.cp.seed, ivf.cp.niter = plan.seed, 10
        ivf.cp.max_points_per_centroid, ivf.cp.min_points_per_centroid = 2**20, 1
    drawn = training_rows(len(vectors), plan)
    sample = vectors if len(drawn) == len(vectors) else vectors[drawn]
    try:
        with FaissThreads(threads):
            index.train(np.ascontiguousarray(sample))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise ValueError(
            f"factory: {plan.factory!r} could not be trained on {len(sample)} vectors; wanted more "
            f"of them, or a smaller index ({reason})"
        ) from error
    return index


def training_rows(count: int, config: IndexConfig) -> np.ndarray:
    """Draw the rows that train an index, in ascending order; all rows if `count` is small."""
    wanted = config.train_rows or count
    if wanted >= count:
        return np.arange(count)
    return np.sort(np.random.default_rng(config.seed).choice(count, wanted, replace=False))


def add_rows(index: Any, vectors: np.ndarray) -> None:
    """Add (N, dim) vectors in blocks; row numbers continue where the index ends."""
    for start in range(0, len(vectors), _ADDED_ROWS):
        index.add(np.ascontiguousarray(vectors[start : start + _ADDED_ROWS], np.float32))


def set_search_width(index: Any, config: IndexConfig) -> None:
    """Set the cells visited (IVF) or the width (HNSW) of later searches."""
    ivf = faiss.try_extract_index_ivf(index)
    if ivf is not None:
        ivf.nprobe = min(config.nprobe or 1, ivf.nlist)
        _set_coarse_width(ivf, max(_COARSE_WIDTH, 2 * ivf.nprobe))
    elif isinstance(index, faiss.IndexHNSW):
        index.hnsw.efSearch = config.ef_search


def _set_coarse_width(ivf: Any, width: int) -> None:
    """Set the width of the graph that finds the cells, where there is one (`IVF.._HNSW32`)."""
    quantizer = faiss.downcast_index(ivf.quantizer)
    if isinstance(quantizer, faiss.IndexHNSW):
        quantizer.hnsw.efSearch = width


def _set_build_width(index: Any, config: IndexConfig) -> None:
    if isinstance(index, faiss.IndexHNSW):
        index.hnsw.efConstruction = config.ef_construction


def _without_direct_map(index: Any) -> None:
    ivf = faiss.try_extract_index_ivf(index)
    if ivf is not None:
        ivf.make_direct_map(False)


def _renumber(ivf: Any, kept: np.ndarray) -> None:
    """Close the gaps in the row numbers that the cells hold.

    Example: of four rows, 0, 1 and 3 remain, so kept = [1, 1, 0, 1]; row 3 becomes cumsum - 1 = 2.
    """
    new_row = np.cumsum(kept) - 1
    for cell in range(ivf.nlist):
        size = ivf.invlists.list_size(cell)
        if size:
            ids = faiss.rev_swig_ptr(ivf.invlists.get_ids(cell), size)
            ids[:] = new_row[ids]
