"""FAISS indexes read from a file or from bytes, mended where FAISS leaves them incomplete.

Takes a path or bytes; gives an index of which each operation may be called.
"""

from pathlib import Path
from typing import Any

import faiss
import numpy as np

from cm3_retrieval.utf8_path import utf8_path


def read_index(path: Path, *, mmap: bool = False) -> faiss.Index:
    """Read an index file.

    Args:
        path: A file of FAISS.
        mmap: Map the file; pages are read when a search needs them.

    Raises:
        RuntimeError: The file cannot be opened, or holds no index.
    """
    flags = faiss.IO_FLAG_MMAP_IFC if mmap else 0
    with utf8_path(path) as name:
        return _mended(faiss.read_index(name, flags))


def index_from_bytes(data: np.ndarray) -> faiss.Index:
    """Read an index that `faiss.serialize_index` wrote."""
    return _mended(faiss.deserialize_index(data))


def _mended(index: faiss.Index) -> faiss.Index:
    """Give an IVF fast-scan index its fine quantizer again.

    FAISS 1.15.1 leaves it null after reading; to reconstruct a vector then kills the process.
    """
    found: Any = faiss.try_extract_index_ivf(index)
    inner: Any = None if found is None else faiss.downcast_index(found)
    if getattr(inner, "fine_quantizer", 0) is None:  # other indexes have no such part
        for name in ("pq", "aq"):  # product or additive; a third kind, RaBitQ, needs none
            if hasattr(inner, name):
                inner.fine_quantizer = getattr(inner, name)
    return index
