"""The neighbour table: per document and kind of query, the documents that the strategy took.

Takes arrays; gives lookup by key, and a folder on disk (Arrow file, manifest with SHA-256s). Paper
2.1 (arXiv 2309.02591): two documents by image and two by text.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from cm3_retrieval.bank.files import read_table, write_table
from cm3_retrieval.index.checks import checked_count
from cm3_retrieval.index.rows import KeyRows
from cm3_retrieval.interface import TABLE_COMPONENT
from cm3_retrieval.sealed_folder import MANIFEST_NAME, open_folder, write_folder

KINDS = ("image", "text")
"""The two kinds of query, in the order in which they alternate."""


class NeighbourTable:
    """The documents that the strategy took, per document and kind of query."""

    def __init__(
        self,
        keys: np.ndarray,
        candidates: Mapping[str, np.ndarray],
        scores: Mapping[str, np.ndarray],
        facts: Mapping[str, Any],
    ) -> None:
        """Wrap finished arrays; `build_neighbour_table` and `load` call this.

        Args:
            keys: (N,) int64, the documents.
            candidates: Kind -> (N, C) int64 keys, best first, padded with -1.
            scores: Kind -> (N, C) float32, padded with 0.
            facts: How the table was made, as JSON values: config, seed, encoder_id.
        """
        self.keys = keys
        self.candidate_keys = dict(candidates)
        self.candidate_scores = dict(scores)
        self.facts = dict(facts)
        self._rows = KeyRows(np.asarray(keys))

    def __len__(self) -> int:
        """Return the number of documents."""
        return len(self.keys)

    def candidates(self, key: int) -> dict[str, np.ndarray]:
        """Return kind -> candidate keys of one document, best first, without padding.

        Raises:
            KeyError: The table has no such document.
            ValueError: `key` is no integer.
        """
        key = checked_count("key", key, 0)
        known = key <= np.iinfo(np.int64).max
        row = int(self._rows.rows_of(np.array([key]))[0]) if known else -1
        if row < 0:
            raise KeyError(f"key {key} is not in the neighbour table of {len(self)} documents")
        rows = {kind: self.candidate_keys[kind][row] for kind in KINDS}
        return {kind: row[row >= 0] for kind, row in rows.items()}

    def save(self, folder: Path | str) -> None:
        """Write the table; after a kill the folder holds the old table or the new one."""
        columns: dict[str, Any] = {"key": pa.array(self.keys)}
        for kind in KINDS:
            width = self.candidate_keys[kind].shape[1]
            for name, array in (
                (f"{kind}_keys", self.candidate_keys[kind]),
                (f"{kind}_scores", self.candidate_scores[kind]),
            ):
                flat = pa.array(array.reshape(-1))
                columns[name] = pa.FixedSizeListArray.from_arrays(flat, width)
        table = pa.table(columns)

        contents = {"neighbours.arrow": lambda file: write_table(table, file)}
        facts = {**self.facts, "count": len(self)}
        write_folder(folder, MANIFEST_NAME, TABLE_COMPONENT, contents, facts)

    @classmethod
    def load(cls, folder: Path | str) -> "NeighbourTable":
        """Read a table and check component, version and SHA-256s.

        Raises:
            FileNotFoundError: A file is missing.
            ValueError: Changed bytes, or another component or major version.
        """
        manifest, table = open_folder(
            folder, MANIFEST_NAME, TABLE_COMPONENT,
            lambda manifest, paths: (manifest, read_table(paths["neighbours.arrow"])),
        )  # fmt: skip
        table = table.combine_chunks()

        def rows(name: str) -> np.ndarray:
            column = table.column(name)
            flat = pa.chunked_array(
                [chunk.values for chunk in column.chunks], column.type.value_type
            )
            return flat.to_numpy().reshape(-1, column.type.list_size).copy()  # (N, C)

        fixed = ("component", "interface_version", "files", "manifest_sha256", "count")
        return cls(
            table.column("key").to_numpy().copy(),
            {kind: rows(f"{kind}_keys") for kind in KINDS},
            {kind: rows(f"{kind}_scores") for kind in KINDS},
            {name: value for name, value in manifest.items() if name not in fixed},
        )
