"""One index merged from those of shards that share their training.

Takes a trained index without rows; gives an index for each shard to fill, and the index of all
rows. Paper 2.1 (arXiv 2309.02591) keeps a whole training set in its memory bank.
"""

from collections.abc import Iterable
from typing import Any

import faiss

from cm3_retrieval.index.reading import index_from_bytes


def shard_index(trained: faiss.Index) -> faiss.Index:
    """Return an empty index for a shard's rows; it shares parts with `trained`.

    FAISS 1.15 corrupts memory when it merges fast-scan indexes (`x4fs`). Their plain twin has the
    same cells and the same codes, laid out row by row, and can be merged.

    Raises:
        ValueError: A fast-scan index of another form than `IVF..,PQ..x4fs`, which has no twin.
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
    """Append the rows of later indexes to the first; all share one training.

    Raises:
        ValueError: No index given, or a kind that cannot be merged, such as HNSW or fast-scan.
    """
    merged: Any = None
    for index in indexes:
        if _holds_fast_scan(index):
            raise ValueError("indexes: wanted those of `shard_index`, got a fast-scan index")
        if merged is None:
            merged = index
            continue
        numbered = faiss.try_extract_index_ivf(merged) is not None  # others number rows by position
        try:
            merged.merge_from(index, merged.ntotal if numbered else 0)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise ValueError(f"indexes: FAISS can merge IVF, not these ({reason})") from error
    if merged is None:
        raise ValueError("indexes: wanted at least one")
    return merged


def as_trained(merged: faiss.Index, trained: faiss.Index) -> faiss.Index:
    """Convert an index merged from shards back to the kind of `trained`."""
    if not isinstance(trained, faiss.IndexIVFPQFastScan):
        return merged
    packed: Any = faiss.IndexIVFPQFastScan(merged)
    # It points into `merged`; a copy by way of bytes does not.
    return index_from_bytes(faiss.serialize_index(packed))


def _holds_fast_scan(index: Any) -> bool:
    while isinstance(index, faiss.IndexPreTransform):
        index = faiss.downcast_index(index.index)
    return isinstance(index, faiss.IndexIVFFastScan | faiss.IndexFastScan)
