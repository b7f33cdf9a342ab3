"""Token shards: rows of (caption, picture) as ids and codes on disk, memory-mapped Arrow IPC.

Takes rows (dicts) and gives files `shard-00000-0a1b2c3d4e5f.arrow`, ... (a number, and the start of
the file's SHA-256) with a `manifest.json` that is written last; reads them back by key. One row is
one encoding of one picture: several augmented encodings share a `key` and count their `view` from
0, each with a caption of its own.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from cm3_train.artifact import atomic_file, check_stamp, sha256_of_file, stamp, write_json
from cm3_train.integers import UINT16, integer, integers
from cm3_train.interface import INTERFACE_VERSION

COMPONENT = "cm3-train/token-shards"
MANIFEST = "manifest.json"
_FIELDS = ("key", "view", "text_ids", "codes", "caption", "source")


def write_shards(
    rows: Iterable[Mapping[str, Any]],
    folder: str | Path,
    *,
    codes_per_image: int,
    vocabulary_sha256: str,
    rows_per_shard: int = 65536,
) -> Path:
    """Write rows as shards; only `rows_per_shard` of them are held at a time.

    Args:
        rows: Dicts with `key` (int), `view` (int, default 0), `text_ids` (ints), `codes`
            (`codes_per_image` ints, row-major), `caption` and `source` (str, default empty).
        folder: Where the shards go; those of an earlier call are replaced once all are written,
            and stay if this call fails or is killed.
        codes_per_image: Length of every row's `codes`.
        vocabulary_sha256: Identity of the vocabulary that the ids belong to.
        rows_per_shard: Rows of one file.

    Returns:
        The manifest's path. It is written last, so a folder without one was never finished.

    Raises:
        ValueError: A row that does not fit; names the row and the field.
        OSError: The disk is full; nothing half-written stays.
    """
    if rows_per_shard < 1:
        raise ValueError(f"rows_per_shard: wanted at least 1, got {rows_per_shard}")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    before = set(folder.glob("shard-*.arrow"))
    try:
        files = _write_files(rows, folder, codes_per_image, rows_per_shard)
    except BaseException:
        for new in set(folder.glob("shard-*.arrow")) - before:
            new.unlink()
        raise
    manifest = {
        **stamp(COMPONENT, INTERFACE_VERSION),
        "vocabulary_sha256": vocabulary_sha256,
        "codes_per_image": codes_per_image,
        "rows": sum(entry["rows"] for entry in files),
        "files": files,
    }
    write_json(folder / MANIFEST, manifest)
    written = {entry["name"] for entry in files}
    for stale in before:
        if stale.name not in written:
            stale.unlink()
    return folder / MANIFEST


def _write_files(
    rows: Iterable[Mapping[str, Any]], folder: Path, codes_per_image: int, rows_per_shard: int
) -> list[dict[str, Any]]:
    """Write the shards and return their entries in the manifest.

    A name holds the hash of what is in the file, so no file of an earlier set is written over.
    """
    files: list[dict[str, Any]] = []
    keys: list[np.ndarray] = []
    views: list[np.ndarray] = []
    remaining = iter(rows)
    while chunk := list(islice(remaining, rows_per_shard)):
        batch = _record_batch(chunk, codes_per_image, first_row=len(files) * rows_per_shard)
        entry: dict[str, Any] = {"name": f"shard-{len(files):05d}.arrow", "rows": len(chunk)}

        def hashed(file: BinaryIO, entry: dict[str, Any] = entry) -> str:
            entry["sha256"] = sha256_of_file(file.name)
            entry["name"] = entry["name"].replace(".arrow", f"-{entry['sha256'][:12]}.arrow")
            return entry["name"]

        with (
            atomic_file(folder / entry["name"], name=hashed) as file,
            pa.ipc.new_file(file, batch.schema) as writer,
        ):
            writer.write_batch(batch)
        files.append(entry)
        keys.append(batch.column("key").to_numpy())
        views.append(batch.column("view").to_numpy())
    if not files:
        raise ValueError("rows: wanted at least one, got none")
    _KeyIndex(np.concatenate(keys), np.concatenate(views))  # refuses repeated or missing views
    return files


class TokenShards:
    """Read-only, memory-mapped view of a folder written by `write_shards`.

    Opening it checks version, vocabulary and the hash of every file. What stays in memory is a few
    index arrays; the columns themselves are pages of the files.

    Args:
        folder: The folder with `manifest.json`.
        vocabulary_sha256: The vocabulary in use; None takes whatever the shards were made with.

    Raises:
        ValueError: Wrong component, version, vocabulary or hash; names the file.
        FileNotFoundError: No manifest, so the folder was never finished.
    """

    def __init__(self, folder: str | Path, vocabulary_sha256: str | None = None) -> None:
        """Check and map the files."""
        folder = Path(folder)
        manifest = _read_manifest(folder / MANIFEST)
        self.vocabulary_sha256: str = manifest["vocabulary_sha256"]
        self.codes_per_image: int = manifest["codes_per_image"]
        if vocabulary_sha256 not in (None, self.vocabulary_sha256):
            raise ValueError(
                f"{folder}: wanted shards of vocabulary {vocabulary_sha256}, "
                f"got {self.vocabulary_sha256}; encode the captions again"
            )
        batches = [_map_shard(folder / entry["name"], entry) for entry in manifest["files"]]
        self._text = [_ragged(batch.column("text_ids")) for batch in batches]
        self._codes = [_matrix(batch.column("codes"), self.codes_per_image) for batch in batches]
        self._captions = [batch.column("caption") for batch in batches]
        self._first_row = np.cumsum([0] + [batch.num_rows for batch in batches])
        self._index = _KeyIndex(
            np.concatenate([batch.column("key").to_numpy() for batch in batches]),
            np.concatenate([batch.column("view").to_numpy() for batch in batches]),
        )

    @property
    def keys(self) -> np.ndarray:
        """Unique keys in file order, int64 (N,)."""
        return self._index.keys

    def __len__(self) -> int:
        """Return the number of unique keys."""
        return len(self.keys)

    def num_views(self, key: int) -> int:
        """Return how many encodings of the picture `key` there are."""
        return self._index.num_views(key)

    def text_ids(self, key: int, view: int = 0) -> np.ndarray:
        """Return the caption's ids, uint16 (T,), without a copy."""
        shard, row = self._locate(key, view)
        offsets, values = self._text[shard]
        return values[offsets[row] : offsets[row + 1]]

    def codes(self, key: int, view: int = 0) -> np.ndarray:
        """Return the picture's codes in row-major order, uint16 (codes_per_image,), no copy."""
        shard, row = self._locate(key, view)
        return self._codes[shard][row]

    def caption(self, key: int, view: int = 0) -> str:
        """Return the caption as text."""
        shard, row = self._locate(key, view)
        return self._captions[shard][row].as_py()

    def _locate(self, key: int, view: int) -> tuple[int, int]:
        row = self._index.row(key, view)
        shard = int(np.searchsorted(self._first_row, row, side="right")) - 1
        return shard, row - int(self._first_row[shard])


class _KeyIndex:
    """Rows by (key, view): one stable sort, then a binary search a look-up.

    Keys [7, 3, 7, 3] with views [0, 0, 1, 1]: sorted rows [1, 3, 0, 2], unique keys in file order
    [7, 3]; key 7 starts at sorted position 2, so its view 1 is row `order[2 + 1]` = 2.
    """

    def __init__(self, keys: np.ndarray, views: np.ndarray) -> None:
        self._order = np.lexsort((views, keys))
        self._sorted_keys, self._starts, self._counts = np.unique(
            keys[self._order], return_index=True, return_counts=True
        )
        wanted = np.arange(len(keys)) - np.repeat(self._starts, self._counts)
        found = views[self._order]
        if len(wrong := np.flatnonzero(wanted != found)):
            at = wrong[0]
            raise ValueError(
                f"key {keys[self._order[at]]}: wanted views 0, 1, 2, ... each once, "
                f"got view {found[at]} where {wanted[at]} belongs"
            )
        first_rows = self._order[self._starts]
        self.keys = self._sorted_keys[np.argsort(first_rows)]

    def num_views(self, key: int) -> int:
        return int(self._counts[self._find(key)])

    def row(self, key: int, view: int) -> int:
        at = self._find(key)
        if not 0 <= view < self._counts[at]:
            raise IndexError(f"view of key {key}: wanted 0..{self._counts[at] - 1}, got {view}")
        return int(self._order[self._starts[at] + view])

    def _find(self, key: int) -> int:
        at = int(np.searchsorted(self._sorted_keys, key))
        if at == len(self._sorted_keys) or self._sorted_keys[at] != key:
            raise KeyError(f"key {key} is not in the shards")
        return at


def _record_batch(
    rows: list[Mapping[str, Any]], codes_per_image: int, first_row: int
) -> pa.RecordBatch:
    keys, views, texts, codes = [], [], [], []
    for offset, row in enumerate(rows):
        where = f"row {first_row + offset}"
        if unknown := set(row) - set(_FIELDS):
            raise ValueError(f"{where}: wanted the fields {_FIELDS}, got also {sorted(unknown)}")
        if missing := {"key", "text_ids", "codes"} - set(row):
            raise ValueError(f"{where}: the fields {sorted(missing)} are missing")
        keys.append(integer(row["key"], f"{where}: key"))
        views.append(integer(row.get("view", 0), f"{where}: view", UINT16))
        texts.append(integers(row["text_ids"], f"{where}: text_ids", UINT16))
        codes.append(integers(row["codes"], f"{where}: codes", UINT16))
        if len(codes[-1]) != codes_per_image:
            raise ValueError(f"{where}: codes: wanted {codes_per_image}, got {len(codes[-1])}")
        for field in ("caption", "source"):
            if not isinstance(text := row.get(field, ""), str):
                raise ValueError(f"{where}: {field}: wanted a str, got {text!r}")
    offsets = np.cumsum([0] + [len(text) for text in texts], dtype=np.int32)
    columns = {
        "key": pa.array(keys, pa.int64()),
        "view": pa.array(views, pa.uint16()),
        "text_ids": pa.ListArray.from_arrays(
            pa.array(offsets), pa.array(np.concatenate(texts).astype(np.uint16))
        ),
        "codes": pa.FixedSizeListArray.from_arrays(
            pa.array(np.concatenate(codes).astype(np.uint16)), codes_per_image
        ),
        "caption": pa.array([row.get("caption", "") for row in rows], pa.string()),
        "source": pa.array([row.get("source", "") for row in rows], pa.string()),
    }
    return pa.RecordBatch.from_pydict(columns)


def _read_manifest(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no manifest, so the shards were never finished")
    try:
        manifest = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: wanted JSON, got something broken ({error})") from None
    check_stamp(manifest, COMPONENT, INTERFACE_VERSION, path)
    return manifest


def _map_shard(path: Path, entry: Mapping[str, Any]) -> pa.RecordBatch:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: named in the manifest but missing")
    if (found := sha256_of_file(path)) != entry["sha256"]:
        raise ValueError(f"{path}: damaged: wanted SHA-256 {entry['sha256']}, got {found}")
    return pa.ipc.open_file(pa.memory_map(str(path))).get_batch(0)


def _ragged(column: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    return column.offsets.to_numpy(), column.values.to_numpy()


def _matrix(column: pa.Array, width: int) -> np.ndarray:
    return column.values.to_numpy().reshape(-1, width)  # (rows, codes_per_image)
