"""The memory bank: documents' vectors and metadata under one int64 key.

Takes keys, document vectors and columns of metadata; gives search by vector, lookup by key,
adding and removing documents, and a folder on disk (`cm3_retrieval.bank.files`). Paper 2.1 (arXiv
2309.02591).
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa

from cm3_retrieval.bank.columns import joined, metadata_table, rows_of_table
from cm3_retrieval.bank.files import free_key, read_bank, write_bank
from cm3_retrieval.digest import digest_of
from cm3_retrieval.folder_lock import locked
from cm3_retrieval.index.approximate import ApproximateIndex, build_approximate
from cm3_retrieval.index.checks import (
    checked_count,
    checked_documents,
    checked_integers,
    checked_vectors,
)
from cm3_retrieval.index.config import IndexConfig
from cm3_retrieval.index.exact import ExactIndex, build_index
from cm3_retrieval.index.plan import holds_full_vectors, plan_index
from cm3_retrieval.index.tuning import tune_index
from cm3_retrieval.interface import same_encoder

_HASHED_ROWS = 65_536
"""Rows hashed at once."""


class MemoryBank:
    """A set of documents, searchable by maximum inner product."""

    def __init__(
        self,
        index: faiss.IndexIDMap2 | ExactIndex | ApproximateIndex,
        table: pa.Table,
        encoder_id: str,
        *,
        mapped: bool = False,
    ) -> None:
        """Wrap a finished index and its metadata; `build` and `load` call this.

        Args:
            index: Inner-product index on int64 keys.
            table: Column `key` (int64, the index's keys in its order), then the metadata.
            encoder_id: The encoder that made the vectors.
            mapped: Whether the index is memory-mapped, which forbids `append` and `delete`.
        """
        self.encoder_id = encoder_id
        self._index = ExactIndex(index) if isinstance(index, faiss.IndexIDMap2) else index
        self._table = table
        self._both: np.ndarray | None = None  # column `has_both`, once it was asked for
        self._hash: str | None = None  # of the content, once it was asked for
        self._mapped = mapped
        self._next_key = free_key(self._index.keys)
        self._saved: tuple[Path, str] | None = None  # folder and seal of the state on disk

    @classmethod
    def build(
        cls,
        keys: np.ndarray,
        vectors: np.ndarray,
        metadata: Mapping[str, Sequence[Any]],
        encoder_id: str,
        index: IndexConfig | None = None,
        *,
        threads: int = 1,
    ) -> "MemoryBank":
        """Build a bank in memory.

        Args:
            keys: (N,) integers of at least 0, all different.
            vectors: (N, dim) floats, rows of length 1, as `document_vectors` gives them. An index
                that rescores keeps a float32 array without copying it: leave it unchanged.
            metadata: Column name -> N values, such as caption, file_name, source.
            encoder_id: The encoder that made the vectors; `load` compares it.
            index: The index to build. None chooses by N: exact up to 200,000 documents.
            threads: FAISS's threads. With more than one, an HNSW graph differs each time.

        Raises:
            ValueError: An argument is invalid or does not match the others; the message names it.
        """
        keys, vectors = checked_documents(keys, vectors)
        table = metadata_table(keys, metadata)
        plan = plan_index(len(keys), vectors.shape[1], index)
        if plan.factory == "Flat":
            return cls(build_index(vectors, keys), table, encoder_id)
        return cls(build_approximate(vectors, keys, plan, threads=threads), table, encoder_id)

    def __len__(self) -> int:
        """Return the number of documents."""
        return self._index.ntotal

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return self._index.d

    @property
    def keys(self) -> np.ndarray:
        """The (N,) int64 keys, in the order in which documents were added."""
        return self._index.keys.copy()

    @property
    def next_key(self) -> int:
        """A key for a new document: above all that the bank has or had, deleted ones included."""
        return self._next_key

    @property
    def config(self) -> IndexConfig:
        """The index and its settings."""
        return self._index.config

    @property
    def keeps_vectors(self) -> bool:
        """Whether `vectors_of` gives the documents' own vectors, not what an index made of them."""
        return self._index.vectors is not None or holds_full_vectors(self.config.factory)

    @property
    def metadata(self) -> pa.Table:
        """Column `key`, then the metadata, in the order of `keys`."""
        return self._table

    def search(
        self, queries: np.ndarray, k: int, *, threads: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        """Find the k best documents for each query, score descending, then key ascending.

        Args:
            queries: (Q, dim) floats.
            k: 1 to `len(bank)`.
            threads: FAISS's threads.

        Returns:
            (Q, k) float32 scores and (Q, k) int64 keys, best first. From `Flat` they are exact
            and do not depend on the rest of the batch (`cm3_retrieval.index.exact.search`).

        Raises:
            ValueError: Another shape, no floats, NaN, an empty bank, or k outside its range.
        """
        return self._index.search(queries, k, threads=threads)

    def vectors_of(self, keys: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the vectors stored under `keys`, (len(keys), dim) float32.

        They are the documents' own, unless the index compresses vectors and `rescore` is 0; then
        they are reconstructed from the index.

        Raises:
            KeyError: A key is not in the bank.
            ValueError: `keys` are no integers, such as a mask.
        """
        return self._index.vectors_at(self._rows_of(keys))

    def metadata_of(self, keys: Sequence[int] | np.ndarray) -> list[dict[str, Any]]:
        """Return one dict per key: column name -> value, with the key itself under `key`.

        Raises:
            KeyError: A key is not in the bank.
            ValueError: `keys` are no integers, such as a mask.
        """
        return rows_of_table(self._table, self._rows_of(keys))

    def has_both(self, keys: Sequence[int] | np.ndarray) -> np.ndarray:
        """Tell which documents have text and image, by bool column `has_both`; all without one.

        Raises:
            KeyError: A key is not in the bank.
            ValueError: `keys` are no integers, such as a mask.
        """
        rows = self._rows_of(keys)
        if "has_both" not in self._table.column_names:
            return np.ones(len(rows), bool)
        both = self._both
        if both is None:
            both = self._both = self._table.column("has_both").to_numpy().astype(bool)
        return both[rows]

    def append(
        self,
        keys: np.ndarray,
        vectors: np.ndarray,
        metadata: Mapping[str, Sequence[Any]],
        encoder_id: str,
    ) -> None:
        """Add documents at the end: all of them, or none if an argument is invalid.

        The index is not retrained. One that has grown far beyond its training answers less well;
        `reindexed` gives one of the right size.

        Args:
            keys: (M,) integers of at least 0, none of them in the bank.
            vectors: (M, dim) floats, rows of length 1.
            metadata: The bank's columns, M values each.
            encoder_id: The encoder that made the vectors; must be the bank's.

        Raises:
            ValueError: An argument is invalid, or the bank is memory-mapped.
        """
        self._refuse_if_mapped("append")
        if not same_encoder(encoder_id, self.encoder_id):
            raise ValueError(
                f"encoder_id: wanted the bank's, {self.encoder_id!r}, got {encoder_id!r}"
            )
        keys, vectors = checked_documents(keys, vectors, self.dim)
        known = keys[self._index.rows_of(keys) >= 0]
        if len(known):
            raise ValueError(f"keys: wanted new ones, got {int(known[0])}, which the bank has")
        columns = self._table.column_names[1:]
        if set(metadata) != set(columns):
            raise ValueError(f"metadata: wanted columns {columns}, got {sorted(metadata)}")
        table = metadata_table(keys, metadata, self._table.schema)
        self._index.append(vectors, keys)
        self._next_key = max(self._next_key, free_key(keys))
        self._table = joined(self._table.cast(table.schema), table)
        self._both = self._hash = None

    def delete(self, keys: Sequence[int] | np.ndarray, *, threads: int = 1) -> None:
        """Remove documents for good, with vectors, keys and metadata: all of them, or none.

        `Flat` and IVF drop rows quickly; an HNSW graph is rebuilt, so give all keys at once.

        Raises:
            KeyError: A key is not in the bank.
            ValueError: `keys` are no integers, such as a mask.
            ValueError: The bank is memory-mapped.
        """
        self._refuse_if_mapped("delete")
        rows = np.unique(self._rows_of(keys))
        if not len(rows):
            return
        kept = np.ones(len(self), bool)
        kept[rows] = False
        table = self._table.filter(pa.array(kept))
        self._index.delete(rows, threads=threads)
        self._table = table
        self._both = self._hash = None

    def reindexed(self, index: IndexConfig | None = None, *, threads: int = 1) -> "MemoryBank":
        """Return a bank of the same documents under a new index; None chooses by their number.

        Raises:
            ValueError: This bank has not kept the documents' vectors.
        """
        if not self.keeps_vectors:
            raise ValueError(
                f"bank: wanted one that keeps the documents' vectors, got {self.config.factory!r} "
                f"with rescore=0, which only has shortened ones; build it from the documents"
            )
        vectors = self._index.vectors_at(np.arange(len(self)))
        columns = {name: self._table.column(name) for name in self._table.column_names[1:]}
        bank = MemoryBank.build(
            self.keys, vectors, columns, self.encoder_id, index, threads=threads
        )
        bank._next_key = self._next_key
        return bank

    def tune(
        self,
        asked: Mapping[str, np.ndarray],
        *,
        k: int = 10,
        recall: float = 0.95,
        threads: int = 1,
    ) -> dict[str, float]:
        """Set the search width of an IVF index on queries of users; `save` keeps it.

        Args:
            asked: Kind, such as `text` or `image`, -> (Q, dim) floats, some hundred of each.
            k: Results compared with those of exact search.
            recall: Share of them to find, for each kind.
            threads: FAISS's threads.

        Returns:
            `nprobe`, `rescore`, and `recall_KIND` for each kind; empty for an index without cells.

        Raises:
            ValueError: The bank does not keep its vectors, or an argument is invalid.
        """
        k = checked_count("k", k, 1, len(self), ", the number of documents")
        if not 0 < recall <= 1:
            raise ValueError(f"recall: wanted more than 0 and at most 1, got {recall}")
        named = {
            name: checked_vectors(f"asked[{name!r}]", q, self.dim) for name, q in asked.items()
        }
        queries = {name: given for name, given in named.items() if len(given)}
        if not queries:
            raise ValueError(
                f"asked: wanted queries of at least one kind, got none of {set(asked)}"
            )
        if isinstance(self._index, ExactIndex):
            return {}
        if not self.keeps_vectors:
            raise ValueError("bank: wanted one that keeps the documents' vectors, got rescore=0")
        self._hash = None  # the index's settings are part of it
        return tune_index(self._index, queries, k=k, recall=recall, threads=threads)

    def content_hash(self) -> str:
        """Return a SHA-256 over keys, vectors, `has_both` and the index's settings.

        It tells whether what was made from the bank, such as a neighbour table, is of this state.
        """
        if self._hash is not None:
            return self._hash
        blocks = (
            self._index.vectors_at(np.arange(start, min(start + _HASHED_ROWS, len(self))))
            for start in range(0, len(self), _HASHED_ROWS)
        )
        keys = self._index.keys
        facts = keys, self.has_both(keys), asdict(self.config)
        self._hash = digest_of(*facts, *map(digest_of, blocks))
        return self._hash

    def save(self, folder: Path | str) -> None:
        """Write the bank; after a kill the folder holds the old bank or the new one.

        Raises:
            ValueError: This bank was loaded from `folder`, and someone else has saved there since;
                their documents would be lost. `changing` keeps others out from load to save.
        """
        place = Path(folder).resolve()
        replaces = self._saved[1] if self._saved and self._saved[0] == place else None
        seal = write_bank(
            folder, self._index, self._table, self.encoder_id,
            next_key=self._next_key, replaces=replaces,
        )  # fmt: skip
        self._saved = place, seal

    @staticmethod
    def changing(folder: Path | str) -> AbstractContextManager[object]:
        """Wait for other writers of `folder`, and keep them out for a `with` block.

        A single `save` needs no such block. Load, append and save in one block are one step for
        all others; readers are never kept out.

        Example:
            with MemoryBank.changing("bank"):
                bank = MemoryBank.load("bank")
                bank.delete([7])
                bank.save("bank")
        """
        return locked(folder)

    @classmethod
    def load(
        cls, folder: Path | str, encoder_id: str | None = None, *, mmap: bool = False
    ) -> "MemoryBank":
        """Read a bank and check component, version, SHA-256s, counts, keys and canary queries.

        Args:
            folder: The folder that `save` wrote.
            encoder_id: The encoder that will make the queries; None skips the comparison.
            mmap: Map index and vectors from their files; pages are read when a search needs them.
                Such a bank can be searched and saved elsewhere, but not changed.

        Raises:
            FileNotFoundError: A file is missing.
            ValueError: Changed bytes, another major version, another encoder, or other answers to
                the canary queries.
        """
        index, table, manifest = read_bank(folder, encoder_id, mmap=mmap)
        bank = cls(index, table, manifest["encoder_id"], mapped=mmap)
        bank._next_key = max(bank._next_key, manifest.get("next_key", 0))
        bank._saved = Path(folder).resolve(), manifest["manifest_sha256"]
        return bank

    def _refuse_if_mapped(self, what: str) -> None:
        if self._mapped:
            raise ValueError(f"mmap: wanted a bank loaded with mmap=False for {what}, got True")

    def _rows_of(self, keys: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the rows of `keys` in the table."""
        keys = checked_integers("keys", keys).reshape(-1)
        rows = self._index.rows_of(keys)
        missing = keys[rows < 0]
        if len(missing):
            raise KeyError(f"key {int(missing[0])} is not in the bank of {len(self)} documents")
        return rows
