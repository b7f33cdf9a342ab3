"""Where raw pairs come from: shards that are read apart from each other, record by record.

Readers: `image_folder`, `web_dataset`, `parquet`. None holds more than one record's picture, and no
path inside a file is trusted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from cm3_retrieval.metadata_file import NAMES, Row
from cm3_retrieval.picture_file import shown
from cm3_retrieval.text_file import texts_of
from cm3leon.data.raw_files import Unusable


@dataclass(frozen=True, kw_only=True)
class Shard:
    """A part of a source that one worker reads."""

    file: str
    """The file that it is of, relative to the source's folder; for an imagefolder, to the work
    folder."""
    part: int = 0
    """Which part of the file, such as a row group."""
    rows: int | None = None
    """How many records, where that is known without reading them."""

    @property
    def name(self) -> str:
        """What errors call it."""
        return f"{self.file}, part {self.part}" if self.part else self.file


@dataclass(frozen=True, kw_only=True)
class Record:
    """One picture with its columns, not yet checked."""

    row: Row
    """Its columns; `file_name` is the picture's name, unique in the source."""
    read: Callable[[], bytes]
    """Gives the picture's file. Raises ValueError or OSError."""


class Source(Protocol):
    """Raw pairs in shards."""

    def shards(self) -> list[Shard]:
        """List the shards, in the same order each time."""
        ...

    def read(self, shard: Shard) -> Iterator[Record | Unusable]:
        """Yield the records of a shard, in the same order each time."""
        ...


def open_source(folder: Path, work: Path) -> Source:
    """Return the reader of a folder: metadata files, else tars, else Parquet with pictures.

    Args:
        folder: The raw pairs.
        work: Takes what a reader has to note.

    Raises:
        FileNotFoundError: The folder is missing or has none of them.
    """
    from cm3leon.preparation.image_folder import ImageFolder
    from cm3leon.preparation.parquet import ParquetPairs
    from cm3leon.preparation.web_dataset import WebDataset

    if not folder.is_dir():
        raise FileNotFoundError(f"{shown(folder)}: wanted a folder of raw pairs, got none")
    if any(path.name in NAMES for path in folder.rglob("metadata.*")):
        return ImageFolder(folder, work)
    if next(folder.rglob("*.tar"), None) is not None:
        return WebDataset(folder)
    if next(folder.rglob("*.parquet"), None) is not None:
        return ParquetPairs(folder)
    raise FileNotFoundError(
        f"{shown(folder)}: wanted {', '.join(NAMES)}, *.tar or *.parquet, got none of them"
    )


def files_of(folder: Path, suffix: str) -> list[str]:
    """List files below a folder by their relative paths, hidden ones left out, in order."""
    found = (path.relative_to(folder) for path in folder.rglob(f"*{suffix}") if path.is_file())
    return sorted(path.as_posix() for path in found if not any(p[0] == "." for p in path.parts))


def licence_of(fields: dict[str, Any]) -> str:
    """Return the licence of a record, as it stands in `licence` or `license`; empty without one."""
    return _text(fields, "licence", "license")


def origin_of(row: Row) -> str:
    """Return where a record comes from: its `source`, its `url`, or the picture's name."""
    return _text(row.fields, "source", "url") or row.file_name


def _text(fields: dict[str, Any], *names: str) -> str:
    for name in names:
        value = fields.get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)  # COCO numbers its licences
        if isinstance(value, str) and value.strip():
            return " ".join(texts_of(value, name)).strip()
    return ""
