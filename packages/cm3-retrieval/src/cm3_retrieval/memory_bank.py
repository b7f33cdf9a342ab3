"""The memory bank: documents' vectors and metadata under one int64 key.

Takes keys, document vectors and columns of metadata; gives search by vector, look-up by key, and a
folder on disk (FAISS file, Arrow file, manifest with SHA-256s). Paper 2.1 (arXiv 2309.02591).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa

from cm3_retrieval.index import build_index, checked_keys, checked_vectors, search
from cm3_retrieval.interface import BANK_COMPONENT
from cm3_retrieval.storage import read_folder, write_folder

MANIFEST_NAME = "manifest.json"


class MemoryBank:
    """An immutable set of documents, searchable by maximum inner product."""

    def __init__(self, index: faiss.IndexIDMap2, table: pa.Table, encoder_id: str) -> None:
        """Wrap a finished index and its metadata; `build` and `load` are the ways in.

        Args:
            index: Exact inner-product index on int64 keys.
            table: Column `key` (int64, the index's keys in its order), then the metadata.
            encoder_id: The encoder that made the vectors.
        """
        self.encoder_id = encoder_id
        self._index = index
        self._table = table
        self._keys = table.column("key").to_numpy()
        self._order = np.argsort(self._keys)

    @classmethod
    def build(
        cls,
        keys: np.ndarray,
        vectors: np.ndarray,
        metadata: Mapping[str, Sequence[Any]],
        encoder_id: str,
    ) -> "MemoryBank":
        """Build a bank in memory.

        Args:
            keys: (N,) integers of at least 0, all different.
            vectors: (N, dim) floats, rows of length 1, as `document_vectors` gives them.
            metadata: Column name to N values, such as caption, file_name, source.
            encoder_id: The encoder that made the vectors; `load` compares it.

        Raises:
            ValueError: Something does not fit; the message names it.
        """
        keys = checked_keys("keys", keys)
        vectors = checked_vectors("vectors", vectors)
        lengths = np.linalg.norm(vectors, axis=1)
        if (np.abs(lengths - 1) > 1e-3).any():
            row = int(np.abs(lengths - 1).argmax())
            raise ValueError(f"vectors: wanted rows of length 1, got {lengths[row]:.4f} in {row}")
        columns: dict[str, Any] = {"key": pa.array(keys)}
        for name, values in metadata.items():
            if name == "key":
                raise ValueError("metadata: wanted another column name than 'key', it is taken")
            if len(values) != len(keys):
                raise ValueError(f"metadata: wanted {len(keys)} of {name!r}, got {len(values)}")
            columns[name] = pa.array(values)
        return cls(build_index(vectors, keys), pa.table(columns), encoder_id)

    def __len__(self) -> int:
        """Return the number of documents."""
        return self._index.ntotal

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return self._index.d

    @property
    def keys(self) -> np.ndarray:
        """(N,) int64, in the order in which the bank was built."""
        return self._keys.copy()

    def search(
        self, queries: np.ndarray, k: int, *, threads: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        """Find the k best documents for each query; see `cm3_retrieval.index.search`.

        Args:
            queries: (Q, dim) floats.
            k: 1 to `len(bank)`.
            threads: FAISS's threads.

        Returns:
            (Q, k) float32 scores and (Q, k) int64 keys, best first.
        """
        return search(self._index, queries, k, threads=threads)

    def vectors_of(self, keys: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the vectors stored under `keys`, (len(keys), dim) float32.

        Raises:
            KeyError: A key is not in the bank.
        """
        wanted = np.asarray(keys, dtype=np.int64).reshape(-1)
        self._rows_of(wanted)
        return self._index.reconstruct_batch(wanted)

    def metadata_of(self, keys: Sequence[int] | np.ndarray) -> list[dict[str, Any]]:
        """Return one dict a key: column name -> value, with the key itself under `key`.

        Raises:
            KeyError: A key is not in the bank.
        """
        return self._table.take(pa.array(self._rows_of(np.asarray(keys)))).to_pylist()

    def has_both(self, keys: Sequence[int] | np.ndarray) -> np.ndarray:
        """Tell which documents have text and image: bool column `has_both`, all if there is none.

        Raises:
            KeyError: A key is not in the bank.
        """
        rows = self._rows_of(np.asarray(keys))
        if "has_both" not in self._table.column_names:
            return np.ones(len(rows), bool)
        return self._table.column("has_both").to_numpy()[rows].astype(bool)

    def save(self, folder: Path | str) -> None:
        """Write the bank; killed in the middle, the folder holds the old bank or the new one."""
        table = self._table

        def write_index(file: Any) -> None:
            writer = faiss.PyCallbackIOWriter(file.write)  # pyright: ignore[reportAttributeAccessIssue]
            faiss.write_index(self._index, writer)

        def write_metadata(file: Any) -> None:
            with pa.ipc.new_file(pa.PythonFile(file, mode="w"), table.schema) as writer:
                writer.write_table(table)

        write_folder(
            folder,
            MANIFEST_NAME,
            BANK_COMPONENT,
            {"index.faiss": write_index, "metadata.arrow": write_metadata},
            {
                "encoder_id": self.encoder_id,
                "dim": self.dim,
                "metric": "inner_product",
                "count": len(self),
            },
        )

    @classmethod
    def load(cls, folder: Path | str, encoder_id: str | None = None) -> "MemoryBank":
        """Read a bank and check all of it: component, version, SHA-256s, counts, keys.

        Args:
            folder: What `save` wrote.
            encoder_id: The encoder that will make the queries; None skips the comparison.

        Raises:
            FileNotFoundError: A file is missing.
            ValueError: Changed bytes, another major version, or another encoder.
        """
        manifest, paths = read_folder(folder, MANIFEST_NAME, BANK_COMPONENT)
        if encoder_id is not None and manifest["encoder_id"] != encoder_id:
            raise ValueError(
                f"{folder}: wanted a bank of encoder {encoder_id!r}, "
                f"got one of {manifest['encoder_id']!r}; build it anew with your encoder"
            )
        index: Any = faiss.read_index(str(paths["index.faiss"]))
        with pa.memory_map(str(paths["metadata.arrow"])) as source:
            table = pa.ipc.open_file(source).read_all()
        found = (index.ntotal, table.num_rows, index.d, index.metric_type)
        wanted = (manifest["count"], manifest["count"], manifest["dim"], faiss.METRIC_INNER_PRODUCT)
        stored = faiss.vector_to_array(index.id_map)
        if found != wanted or not np.array_equal(stored, table.column("key").to_numpy()):
            raise ValueError(f"{folder}: index, metadata and manifest are not of one bank")
        return cls(index, table, manifest["encoder_id"])

    def _rows_of(self, keys: np.ndarray) -> np.ndarray:
        """Rows of the table, by binary search in the sorted keys.

        Example: keys [7, 2, 5] have order [1, 2, 0]; looking up 5 finds place 1 among [2, 5, 7],
        and order[1] = 2 is its row.
        """
        keys = keys.astype(np.int64).reshape(-1)
        places = np.searchsorted(self._keys, keys, sorter=self._order)
        rows = self._order[np.minimum(places, len(self._order) - 1)] if len(self) else places
        missing = keys[self._keys[rows] != keys] if len(self) else keys
        if len(missing):
            raise KeyError(f"key {int(missing[0])} is not in the bank of {len(self)} documents")
        return rows
