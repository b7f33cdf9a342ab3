"""A memory bank as a folder: FAISS file, Arrow file, full vectors where the index has none.

Takes an index and its metadata; gives them back after checking each file's SHA-256, the counts, the
keys, the encoder and the canary queries. Paper 2.1 (arXiv 2309.02591).
"""

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa

from cm3_retrieval.index.approximate import ApproximateIndex
from cm3_retrieval.index.canaries import check_canaries, make_canaries
from cm3_retrieval.index.config import IndexConfig
from cm3_retrieval.index.exact import ExactIndex
from cm3_retrieval.index.reading import read_index
from cm3_retrieval.interface import BANK_COMPONENT, same_encoder
from cm3_retrieval.sealed_folder import MANIFEST_NAME, open_folder, write_folder


def write_bank(
    folder: Path | str,
    index: ExactIndex | ApproximateIndex,
    table: pa.Table,
    encoder_id: str,
    *,
    next_key: int = 0,
    replaces: str | None = None,
) -> str:
    """Write a bank; after a kill the folder holds the old bank or the new one.

    Args:
        folder: Where to write; made if missing.
        index: A finished index.
        table: Column `key` (int64, the index's keys in its order), then the metadata.
        encoder_id: The encoder that made the vectors.
        next_key: A key that no document of the bank ever had, if larger than the largest it has.
        replaces: The seal of the bank that may be replaced; None replaces any.

    Returns:
        The seal of the bank, which no other bank has.

    Raises:
        ValueError: The folder holds another bank than the one that may be replaced.
    """
    contents = {
        "index.faiss": lambda file: write_index(index.index, file),
        "metadata.arrow": lambda file: write_table(table, file),
    }
    if index.vectors is not None:
        vectors = index.vectors
        contents["vectors.npy"] = lambda file: np.save(file, vectors, allow_pickle=False)
    facts = {
        "encoder_id": encoder_id,
        "dim": index.d,
        "metric": "inner_product",
        "count": index.ntotal,
        "next_key": max(next_key, free_key(index.keys)),
        "index": asdict(index.config),
        "canaries": make_canaries(index),
    }
    return write_folder(folder, MANIFEST_NAME, BANK_COMPONENT, contents, facts, replaces=replaces)


def free_key(keys: np.ndarray) -> int:
    """Return the key after the largest one."""
    return int(keys.max()) + 1 if len(keys) else 0


def read_bank(
    folder: Path | str, encoder_id: str | None, *, mmap: bool
) -> tuple[ExactIndex | ApproximateIndex, pa.Table, dict[str, Any]]:
    """Read a bank and check it; arguments and errors as of `MemoryBank.load`.

    Returns:
        The index, the metadata and the manifest.
    """

    def read(
        manifest: dict[str, Any], paths: dict[str, Path]
    ) -> tuple[ExactIndex | ApproximateIndex, pa.Table, dict[str, Any]]:
        if encoder_id is not None and not same_encoder(manifest["encoder_id"], encoder_id):
            raise ValueError(
                f"{folder}: wanted a bank of encoder {encoder_id!r}, "
                f"got one of {manifest['encoder_id']!r}; rebuild it with your encoder"
            )
        return *_opened(manifest, paths, mmap), manifest

    return open_folder(folder, MANIFEST_NAME, BANK_COMPONENT, read)


def _opened(
    manifest: dict[str, Any], paths: dict[str, Path], mmap: bool
) -> tuple[ExactIndex | ApproximateIndex, pa.Table]:
    stored: Any = read_index(paths["index.faiss"], mmap=mmap)
    table = read_table(paths["metadata.arrow"])
    found = (stored.ntotal, table.num_rows, stored.d, stored.metric_type)
    wanted = (manifest["count"], manifest["count"], manifest["dim"], faiss.METRIC_INNER_PRODUCT)
    keys = table.column("key").to_numpy()
    vectors = None
    if "vectors.npy" in paths:
        vectors = np.load(paths["vectors.npy"], mmap_mode="r" if mmap else None)
    whole = vectors is None or (vectors.shape == wanted[:3:2] and vectors.dtype == np.float32)
    exact = isinstance(stored, faiss.IndexIDMap2)
    same_keys = not exact or np.array_equal(faiss.vector_to_array(stored.id_map), keys)
    if found != wanted or not whole or not same_keys:
        folder = paths["index.faiss"].parent
        raise ValueError(f"{folder}: index, metadata and manifest are not of one bank")
    if exact:
        index = ExactIndex(stored)
    else:
        index = ApproximateIndex(stored, keys, vectors, IndexConfig(**manifest["index"]))
    check_canaries(index, manifest.get("canaries", []), paths["index.faiss"])
    return index, table


def write_index(index: faiss.Index, file: Any) -> None:
    """Write a FAISS index into an open file."""
    writer = faiss.PyCallbackIOWriter(file.write)  # pyright: ignore[reportAttributeAccessIssue]
    faiss.write_index(index, writer)


def read_table(path: Path) -> pa.Table:
    """Read a table that `write_table` wrote; its columns stay in the memory-mapped file."""
    with pa.memory_map(os.fsencode(path)) as source:  # a name need not be UTF-8
        return pa.ipc.open_file(source).read_all()


def write_table(table: pa.Table, file: Any) -> None:
    """Write an Arrow table into an open file."""
    with pa.ipc.new_file(pa.PythonFile(file, mode="w"), table.schema) as writer:
        writer.write_table(table)
