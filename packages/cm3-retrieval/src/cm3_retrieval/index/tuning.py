"""The search width of an index with cells, chosen on queries as users ask them.

Takes an index and queries of each kind; sets how many cells a search visits and how many candidates
it rescores. Texts and pictures lie in regions of their own (arXiv 2203.02053), so a width that does
for documents as queries may find far less for a text.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import faiss
import numpy as np

from cm3_retrieval.index.approximate import ApproximateIndex
from cm3_retrieval.index.threads import FaissThreads

_RESCORE = (16, 32, 64)
"""Candidates for each result that are tried."""


def tune_index(
    index: ApproximateIndex,
    queries: Mapping[str, np.ndarray],
    *,
    k: int,
    recall: float,
    threads: int = 1,
) -> dict[str, float]:
    """Set the smallest `nprobe`, then the smallest `rescore`, that reach the recall for every kind.

    `nprobe` is doubled while the most candidates are rescored; then fewer candidates are tried.
    Where nothing reaches the recall, all cells are visited and the most candidates rescored.

    Args:
        index: An index that has the full vectors.
        queries: Kind -> (Q, dim) float32, at least one of each.
        k: Results compared with those of exact search.
        recall: Share of them to find, for each kind.
        threads: FAISS's threads.

    Returns:
        `nprobe`, `rescore`, and `recall_KIND` for each kind. Empty for an index without cells,
        which stays as it is.
    """
    ivf: Any = faiss.try_extract_index_ivf(index.index)
    if ivf is None:
        return {}
    vectors = index.vectors
    if vectors is None:
        vectors = index.vectors_at(np.arange(index.ntotal))
    with FaissThreads(threads):
        exact = {
            kind: index.keys[faiss.knn(asked, vectors, k, metric=faiss.METRIC_INNER_PRODUCT)[1]]
            for kind, asked in queries.items()
        }

    start, found = index.config, {}

    def enough(nprobe: int, rescore: int) -> bool:
        index.set_config(replace(start, nprobe=nprobe, rescore=rescore))
        for kind, asked in queries.items():
            keys = index.search(asked, k, threads=threads)[1]
            found[f"recall_{kind}"] = float(shared_keys(keys, exact[kind]).mean())
        return min(found.values()) >= recall

    widths = [2**power for power in range(2, 31) if 2**power < ivf.nlist]
    rescores = _RESCORE if start.rescore else (0,)
    nprobe = next((n for n in widths if enough(n, rescores[-1])), ivf.nlist)
    rescore = next((n for n in rescores if enough(nprobe, n)), rescores[-1])
    return {"nprobe": nprobe, "rescore": rescore, **found}


def shared_keys(found: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Return the share of each row of `true` (Q, k) that is in the row of `found`, (Q,)."""
    pairs = zip(found.tolist(), true.tolist(), strict=True)
    return np.array([len(set(ours) & set(theirs)) / len(theirs) for ours, theirs in pairs])
