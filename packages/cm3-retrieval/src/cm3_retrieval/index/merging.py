"""Indexes of shards, trained as one, become one index.

Takes a trained index without rows; gives a like one for each shard, and the index of all. Paper 2.1
(arXiv 2309.02591) keeps a whole training set in its memory bank.
"""

from collections.abc import Iterable
from typing import Any

import faiss


def shard_index(trained: faiss.Index) -> faiss.Index:
    """Return the index that a shard's rows go into; it shares parts with `trained`.

    FAISS (1.15) damages its memory when it merges fast-scan indexes (`x4fs`). Their plain twin has
    the same cells and the same codes, laid out row by row, and can be merged.

    Raises:
        ValueError: A fast-scan index without a plain twin: of another kind than `IVF..,PQ..x4fs`.
    """
    index: Any = trained
    if isinstance(index, faiss.IndexIVFPQFastScan):
        pq = index.pq
        twin: Any = faiss.IndexIVFPQ(
            index.quantizer, index.d, index.nlist, pq.M, pq.nbits, index.metric_type
        )
        twin.pq, twin.by_residual, twin.is_trained = pq, index.by_residual, True
        return twin
    if _holds_fast_scan(index):
        raise ValueError(
            "index: wanted a fast-scan index of the form 'IVF..,PQ..x4fs', or one that is not, to "
            f"merge shards; got {type(index).__name__}"
        )
    return index


def merge_indexes(indexes: Iterable[faiss.Index]) -> faiss.Index:
    """Move the rows of later indexes behind those of the first; all were trained as one.

    Raises:
        ValueError: None given, or indexes that cannot be merged, such as HNSW and fast-scan.
    """
    merged: Any = None
    for index in indexes:
        if _holds_fast_scan(index):
            raise ValueError("indexes: wanted those of `shard_index`, got a fast-scan index")
        if merged is None:
            merged = index
            continue
        numbered = faiss.try_extract_index_ivf(merged) is not None  # others number by place
        try:
            merged.merge_from(index, merged.ntotal if numbered else 0)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise ValueError(f"indexes: FAISS can merge IVF, not these ({reason})") from error
    if merged is None:
        raise ValueError("indexes: wanted at least one")
    return merged


def as_trained(merged: faiss.Index, trained: faiss.Index) -> faiss.Index:
    """Return merged indexes of `shard_index(trained)` as one index of the kind of `trained`."""
    if not isinstance(trained, faiss.IndexIVFPQFastScan):
        return merged
    packed: Any = faiss.IndexIVFPQFastScan(merged)
    # It points into `merged`; written and read it stands alone.
    return faiss.deserialize_index(faiss.serialize_index(packed))


def _holds_fast_scan(index: Any) -> bool:
    while isinstance(index, faiss.IndexPreTransform):
        index = faiss.downcast_index(index.index)
    return isinstance(index, faiss.IndexIVFFastScan | faiss.IndexFastScan)
