"""Writing token shards: Arrow IPC files of rows (caption, picture), an index by key, a manifest.

    shard-00000-0a1b2c3d4e5f.arrow ...   rows; a number, and the start of the file's SHA-256
    index-5f4e3d2c1b0a.arrow             keys in order, and the row of each
    manifest.json                        written last

One call (`write_shards`) writes a set. Processes that share the work write one file each
(`write_shard`), and `seal_shards` makes a set of them.

Every row has checksums of its ids, its codes and its caption, so that a reader finds a flipped byte
where it reads, and need not read whole files to open them.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from cm3_train.artifact import atomic_file, sha256_of_file, stamp, write_json
from cm3_train.integers import UINT16, integer, integers
from cm3_train.interface import INTERFACE_VERSION

COMPONENT = "cm3-train/token-shards"
MANIFEST = "manifest.json"
LAYOUT = 2
"""Of the files; 1 had no index and no checksums."""
MOST_ROWS = 2**32
_TEXTS = ("caption", "source", "licence")
_FIELDS = ("key", "view", "text_ids", "codes", *_TEXTS)


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
            (`codes_per_image` ints, row-major), `caption`, `source` and `licence` (str, default
            empty).
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
    before = set(folder.glob("*.arrow"))
    files: list[dict[str, Any]] = []
    remaining = iter(rows)
    try:
        while chunk := list(islice(remaining, rows_per_shard)):
            first = len(files) * rows_per_shard
            files.append(write_shard(chunk, folder, len(files), codes_per_image, first_row=first))
        return seal_shards(
            folder, files, codes_per_image=codes_per_image, vocabulary_sha256=vocabulary_sha256
        )
    except BaseException:
        for new in set(folder.glob("*.arrow")) - before:
            new.unlink()
        raise


def write_shard(
    rows: Sequence[Mapping[str, Any]],
    folder: str | Path,
    number: int,
    codes_per_image: int,
    *,
    first_row: int = 0,
) -> dict[str, Any]:
    """Write the file of one shard; `seal_shards` makes it part of a set.

    Its name holds the hash of what is in it, so no file of an earlier set is written over.

    Args:
        rows: As of `write_shards`.
        folder: Where the file goes.
        number: Of the shard in its set.
        codes_per_image: As of `write_shards`.
        first_row: What the first row is called in messages.

    Returns:
        The entry of the manifest: name, rows, bytes and sha256.
    """
    batch = _record_batch(rows, codes_per_image, first_row)
    return {"rows": len(rows)} | _write_batch(batch, Path(folder), f"shard-{number:05d}")


def seal_shards(
    folder: str | Path,
    files: Sequence[Mapping[str, Any]],
    *,
    codes_per_image: int,
    vocabulary_sha256: str,
) -> Path:
    """Make a set of the files that `write_shard` wrote: their index, and the manifest, last.

    Files in the folder that are not of the set are deleted then. The index is made in memory, of
    some 40 bytes a row.

    Args:
        folder: Where the files are.
        files: Their entries, in their order.
        codes_per_image: As of `write_shards`.
        vocabulary_sha256: As of `write_shards`.

    Returns:
        The manifest's path.

    Raises:
        ValueError: There is no row, or the views of a key are not 0, 1, 2, ...
    """
    folder = Path(folder)
    total = sum(entry["rows"] for entry in files)
    if not 0 < total < MOST_ROWS:
        raise ValueError(f"rows: wanted at least one and below {MOST_ROWS}, got {total or 'none'}")
    columns = [[], []]
    for entry in files:
        with read_as_written(folder / entry["name"]):
            batch = map_batch(folder / entry["name"])
            for column, name in zip(columns, ("key", "view"), strict=True):
                column.append(batch.column(name).to_numpy())
    keys, views = map(np.concatenate, columns)
    order = np.lexsort((views, keys))
    keys, views = keys[order], views[order]
    firsts = np.append(True, keys[1:] != keys[:-1])
    _check_views(keys, views, firsts)
    rows = order.astype(np.uint32)
    index = _write_batch(pa.RecordBatch.from_pydict({"key": keys, "row": rows}), folder, "index")
    manifest = {
        **stamp(COMPONENT, INTERFACE_VERSION),
        "layout": LAYOUT,
        "vocabulary_sha256": vocabulary_sha256,
        "codes_per_image": codes_per_image,
        "rows": total,
        "keys": int(firsts.sum()),
        "index": {**index, "checksum": index_checksum(keys, rows)},
        "files": list(files),
    }
    write_json(folder / MANIFEST, manifest)
    written = {entry["name"] for entry in (*files, manifest["index"])}
    for path in folder.glob("*.arrow"):
        if path.name not in written:
            path.unlink()
    return folder / MANIFEST


def map_batch(path: Path) -> pa.RecordBatch:
    """Map a file of one record batch into memory; call it within `read_as_written`."""
    with pa.memory_map(str(path)) as file:
        return pa.ipc.open_file(file).get_batch(0)  # stays mapped when the file is closed


@contextmanager
def read_as_written(path: Path) -> Iterator[None]:
    """Turn what Arrow says of a broken file into a ValueError that names it."""
    try:
        yield
    except (pa.ArrowException, OSError, IndexError, KeyError, ValueError, AttributeError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # Arrow's own have none
            raise
        raise ValueError(f"{path}: damaged: wanted an Arrow file of ours, got {error}") from None


def checksums(key: int, view: int, text_ids: np.ndarray, codes: np.ndarray) -> tuple[int, int]:
    """Return the CRC-32 of a row's ids and of its codes, each after those of key and view."""
    start = row_checksum(key, view)
    return zlib.crc32(text_ids, start), zlib.crc32(codes, start)


def row_checksum(key: int, view: int) -> int:
    """Return the CRC-32 of a row's key and view, which its other checksums go on from."""
    return zlib.crc32(key.to_bytes(8, "little", signed=True) + view.to_bytes(2, "little"))


def index_checksum(keys: np.ndarray, rows: np.ndarray) -> int:
    """Return the CRC-32 of an index: a few GB a second, and it is small."""
    return zlib.crc32(rows, zlib.crc32(keys))


def _check_views(keys: np.ndarray, views: np.ndarray, firsts: np.ndarray) -> None:
    """Refuse rows in the order of (key, view) where a key's views do not count from 0."""
    starts = np.flatnonzero(firsts)
    wanted = np.arange(len(keys)) - np.repeat(starts, np.diff(starts, append=len(keys)))
    if len(wrong := np.flatnonzero(wanted != views)):
        at = wrong[0]
        raise ValueError(
            f"key {keys[at]}: wanted views 0, 1, 2, ... each once, "
            f"got view {views[at]} where {wanted[at]} belongs"
        )


def _write_batch(batch: pa.RecordBatch, folder: Path, stem: str) -> dict[str, Any]:
    """Write a file of one record batch, named by `stem` and its hash; return its entry."""
    entry: dict[str, Any] = {}

    def hashed(file: BinaryIO) -> str:
        sha256 = sha256_of_file(file.name)
        entry.update(name=f"{stem}-{sha256[:12]}.arrow", bytes=file.seek(0, 2), sha256=sha256)
        return entry["name"]

    with (
        atomic_file(folder / f"{stem}.arrow", name=hashed) as file,
        pa.ipc.new_file(file, batch.schema) as writer,
    ):
        writer.write_batch(batch)
    return entry


def _record_batch(
    rows: Sequence[Mapping[str, Any]], codes_per_image: int, first_row: int
) -> pa.RecordBatch:
    keys, views, texts, codes, sums, said = [], [], [], [], [], []
    for offset, row in enumerate(rows):
        where = f"row {first_row + offset}"
        if unknown := set(row) - set(_FIELDS):
            raise ValueError(f"{where}: wanted the fields {_FIELDS}, got also {sorted(unknown)}")
        if missing := {"key", "text_ids", "codes"} - set(row):
            raise ValueError(f"{where}: the fields {sorted(missing)} are missing")
        keys.append(integer(row["key"], f"{where}: key"))
        views.append(integer(row.get("view", 0), f"{where}: view", UINT16))
        text_ids = integers(row["text_ids"], f"{where}: text_ids", UINT16)
        codes_of_row = integers(row["codes"], f"{where}: codes", UINT16)
        if len(codes_of_row) != codes_per_image:
            raise ValueError(f"{where}: codes: wanted {codes_per_image}, got {len(codes_of_row)}")
        texts.append(text_ids.astype(np.uint16))
        codes.append(codes_of_row.astype(np.uint16))
        sums.append(checksums(keys[-1], views[-1], texts[-1], codes[-1]))
        for field in _TEXTS:
            if not isinstance(text := row.get(field, ""), str):
                raise ValueError(f"{where}: {field}: wanted a str, got {text!r}")
        said.append(zlib.crc32(row.get("caption", "").encode(), row_checksum(keys[-1], views[-1])))
    offsets = np.cumsum([0] + [len(text) for text in texts], dtype=np.int32)
    of_text, of_codes = np.array(sums, np.uint32).T
    columns = {
        "key": pa.array(keys, pa.int64()),
        "view": pa.array(views, pa.uint16()),
        "text_ids": pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.concatenate(texts))),
        "codes": pa.FixedSizeListArray.from_arrays(
            pa.array(np.concatenate(codes)), codes_per_image
        ),
        **{name: pa.array([row.get(name, "") for row in rows], pa.string()) for name in _TEXTS},
        "text_checksum": pa.array(of_text),
        "codes_checksum": pa.array(of_codes),
        "caption_checksum": pa.array(said, pa.uint32()),
    }
    return pa.RecordBatch.from_pydict(columns)
