"""Reading token shards (`shard_files` writes them): ids and codes by key, memory-mapped.

One row is one encoding of one picture: several augmented encodings share a `key` and count their
`view` from 0, each with a caption of its own.

Opening a set reads its manifest and its index, 12 bytes a row, which stays where it lies on the
disk. A shard is mapped when the first of its rows is read, and each row's checksum is compared when
it is read. `check_files` reads everything.
"""

from __future__ import annotations

import json
import zlib
from bisect import bisect_right
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from cm3_train.artifact import check_stamp, sha256_of_file
from cm3_train.interface import INTERFACE_VERSION
from cm3_train.shard_files import (
    COMPONENT,
    LAYOUT,
    MANIFEST,
    index_checksum,
    map_batch,
    read_as_written,
    row_checksum,
)


class TokenShards:
    """Read-only, memory-mapped view of a folder written by `write_shards`.

    Opening it checks version, vocabulary and index, and that no file is missing or cut short.

    Args:
        folder: The folder with `manifest.json`.
        vocabulary_sha256: The vocabulary in use; None takes whatever the shards were made with.

    Raises:
        ValueError: Wrong component, version, vocabulary or length; names the file. A row's ids or
            codes that are not those that were written raise it when they are read.
        FileNotFoundError: No manifest, so the folder was never finished; or a file is missing.
    """

    def __init__(self, folder: str | Path, vocabulary_sha256: str | None = None) -> None:
        """Check the manifest."""
        self.folder = Path(folder)
        self._manifest = _read_manifest(self.folder / MANIFEST)
        self.vocabulary_sha256: str = self._manifest["vocabulary_sha256"]
        self.codes_per_image: int = self._manifest["codes_per_image"]
        if vocabulary_sha256 not in (None, self.vocabulary_sha256):
            raise ValueError(
                f"{folder}: wanted shards of vocabulary {vocabulary_sha256}, "
                f"got {self.vocabulary_sha256}; encode the captions again"
            )
        files = self._manifest["files"]
        for entry in (*files, self._manifest["index"]):
            _check_name(self.folder / MANIFEST, entry["name"])
            _check_length(self.folder / entry["name"], entry["bytes"])
        self._shards: list[_Shard | None] = [None] * len(files)
        self._first_row = np.cumsum([0] + [entry["rows"] for entry in files]).tolist()
        index = self._manifest["index"]
        path = self.folder / index["name"]
        with read_as_written(path):
            batch = map_batch(path)
            self._sorted_keys = batch.column("key").to_numpy()
            self._rows = batch.column("row").to_numpy()
        if index_checksum(self._sorted_keys, self._rows) != index["checksum"]:
            raise ValueError(f"{path}: damaged: wanted checksum {index['checksum']}, got another")

    @cached_property
    def keys(self) -> np.ndarray:
        """Unique keys in file order, int64 (N,); read from all files when first asked for."""
        shards = [self._shard(number) for number in range(len(self._shards))]
        return np.concatenate([shard.keys[shard.views == 0] for shard in shards])

    def __len__(self) -> int:
        """Return the number of unique keys."""
        return self._manifest["keys"]

    def num_views(self, key: int) -> int:
        """Return how many encodings of the picture `key` there are."""
        return int(self._sorted_keys.searchsorted(key, side="right")) - self._find(key)

    def text_ids(self, key: int, view: int = 0) -> np.ndarray:
        """Return the caption's ids, uint16 (T,), without a copy."""
        return self._read(key, view, "text_ids")

    def codes(self, key: int, view: int = 0) -> np.ndarray:
        """Return the picture's codes in row-major order, uint16 (codes_per_image,), no copy."""
        return self._read(key, view, "codes")

    def caption(self, key: int, view: int = 0) -> str:
        """Return the caption as text."""
        shard, row = self._locate(key, view)
        written = shard.values("caption", row)
        if shard.of_captions is not None:
            wanted = shard.of_captions[row]
            if zlib.crc32(written, row_checksum(int(key), int(view))) != wanted:
                raise ValueError(
                    f"{shard.path}: damaged: wanted the caption of key {key}, view {view} in row "
                    f"{row} with the checksum {wanted}, got another"
                )
        return written.tobytes().decode()

    def source(self, key: int, view: int = 0) -> str:
        """Return where the pair comes from."""
        return self._text(key, view, "source")

    def licence(self, key: int, view: int = 0) -> str:
        """Return under which licence the picture stands, empty if that is not known."""
        return self._text(key, view, "licence")

    def check_files(self) -> None:
        """Compare every file with the hash in the manifest; reads all of them.

        Raises:
            ValueError: A file is damaged; names it.
        """
        for entry in (*self._manifest["files"], self._manifest["index"]):
            path = self.folder / entry["name"]
            if (found := sha256_of_file(path)) != entry["sha256"]:
                raise ValueError(f"{path}: damaged: wanted SHA-256 {entry['sha256']}, got {found}")

    def _read(self, key: int, view: int, column: str) -> np.ndarray:
        shard, row = self._locate(key, view)
        values = shard.values(column, row)
        if zlib.crc32(values, row_checksum(int(key), int(view))) != shard.checksums[column][row]:
            raise ValueError(
                f"{shard.path}: damaged: wanted the {column} of key {key}, view {view} in row "
                f"{row} with the checksum {shard.checksums[column][row]}, got others"
            )
        return values

    def _text(self, key: int, view: int, column: str) -> str:
        shard, row = self._locate(key, view)
        return shard.batch.column(column)[row].as_py()

    def _locate(self, key: int, view: int) -> tuple[_Shard, int]:
        place = self._find(key) + view
        last = place >= len(self._sorted_keys) or self._sorted_keys[place] != key
        if view < 0 or last:
            raise IndexError(f"view of key {key}: wanted 0..{self.num_views(key) - 1}, got {view}")
        row = int(self._rows[place])
        number = bisect_right(self._first_row, row) - 1
        return self._shard(number), row - self._first_row[number]

    def _find(self, key: int) -> int:
        place = int(self._sorted_keys.searchsorted(key))
        if place == len(self._sorted_keys) or self._sorted_keys[place] != key:
            raise KeyError(f"key {key} is not in the shards")
        return place

    def _shard(self, number: int) -> _Shard:
        found = self._shards[number]
        if found is None:
            path = self.folder / self._manifest["files"][number]["name"]
            found = self._shards[number] = _Shard(path, self.codes_per_image)
        return found


class _Shard:
    """The columns of one file, memory-mapped."""

    def __init__(self, path: Path, codes_per_image: int) -> None:
        self.path = path
        with read_as_written(path):
            self.batch = map_batch(path)
            self.keys = self.batch.column("key").to_numpy()
            self.views = self.batch.column("view").to_numpy()
            text, codes = self.batch.column("text_ids"), self.batch.column("codes")
            self._offsets, self._text = text.offsets.to_numpy(), text.values.to_numpy()
            self._codes = codes.values.to_numpy().reshape(-1, codes_per_image)
            _, offsets, captions = self.batch.column("caption").buffers()
            self._caption_offsets = np.frombuffer(offsets, np.int32)
            self._captions = np.frombuffer(captions or b"", np.uint8)
            self.checksums = {
                "text_ids": self.batch.column("text_checksum").to_numpy(),
                "codes": self.batch.column("codes_checksum").to_numpy(),
            }
            self.of_captions: np.ndarray | None = None
            if "caption_checksum" in self.batch.schema.names:  # shards of before have none
                self.of_captions = self.batch.column("caption_checksum").to_numpy()

    def values(self, column: str, row: int) -> np.ndarray:
        if column == "codes":
            return self._codes[row]
        if column == "caption":
            return self._captions[self._caption_offsets[row] : self._caption_offsets[row + 1]]
        return self._text[self._offsets[row] : self._offsets[row + 1]]


def _read_manifest(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no manifest, so the shards were never finished")
    try:
        manifest = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: wanted JSON, got something broken ({error})") from None
    check_stamp(manifest, COMPONENT, INTERFACE_VERSION, path)
    if (layout := manifest.get("layout", 1)) != LAYOUT:
        raise ValueError(
            f"{path}: wanted shards of layout {LAYOUT}, got {layout}; "
            "write them again (a run makes them anew when its folder `shards` is deleted)"
        )
    return manifest


def _check_name(path: Path, name: object) -> None:
    if not isinstance(name, str) or Path(name).name != name:
        raise ValueError(f"{path}: wanted the names of files beside it, got {name!r}")


def _check_length(path: Path, length: int) -> None:
    try:
        found = path.stat().st_size
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: named in the manifest but missing") from None
    if found != length:
        raise ValueError(f"{path}: damaged: wanted {length} bytes, got {found}")
