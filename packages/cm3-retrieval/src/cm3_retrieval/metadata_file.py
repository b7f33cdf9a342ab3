"""The metadata of a folder of pictures, as Hugging Face's imagefolder has it.

`metadata.jsonl`, `.csv` or `.parquet`, one kind in a folder and its subfolders. A row has the
picture's `file_name`, relative to the metadata file, and whatever columns its user wants.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from cm3_retrieval.picture_file import list_files, shown
from cm3_retrieval.text_file import parse_object, place_of, read_lines, texts_of

NAMES = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
"""Files of metadata."""
_COLUMN = "file_name"


@dataclass(frozen=True, kw_only=True)
class Row:
    """The metadata of one picture."""

    file: Path
    """The file of metadata."""
    number: int
    """The line, or the row of a Parquet file, counted from 1."""
    file_name: str
    """The picture's path relative to the folder, with `/`, without `.`; it may not be there."""
    fields: dict[str, Any]
    """The columns by their names."""

    @property
    def place(self) -> str:
        """Where it stands, for errors."""
        return place_of(self.file, self.number)

    @property
    def captions(self) -> list[str]:
        """The texts that are not blank in column `text`, or in `caption` where there is none.

        Raises:
            ValueError: It is neither a string, a list of them nor null, or no valid Unicode.
        """
        for name in ("text", "caption"):
            texts = texts_of(self.fields.get(name), f"{self.place}: {name!r}")
            if texts:
                return [text.strip() for text in texts if text.strip()]
        return []


def metadata_files(folder: Path | str, *, unless: str | None = None) -> list[Path]:
    """List the files of metadata in a folder and its subfolders.

    Args:
        folder: Where to look.
        unless: Name of a file; in subfolders, metadata beside it do not count.

    Raises:
        OSError: The folder or a subfolder is missing or cannot be read.
        ValueError: There is more than one kind of them.
    """
    found = [path for path in list_files(folder, NAMES) if path.name in NAMES]
    if unless:
        own = Path(folder)
        found = [p for p in found if p.parent == own or not (p.parent / unless).exists()]
    other = next((path for path in found if path.suffix != found[0].suffix), None)
    if other is not None:
        raise ValueError(
            f"{shown(other)}: wanted metadata of one kind in a folder, got {shown(found[0])} too"
        )
    return found


def read_metadata(
    folder: Path | str,
    *,
    unless: str | None = None,
    refused: Callable[[Path, int, ValueError], object] | None = None,
    columns: Sequence[str] = (_COLUMN,),
) -> Iterator[Row]:
    """Yield the rows of all metadata in a folder and its subfolders; see `metadata_files`.

    Args:
        folder: Where to look.
        unless: As of `metadata_files`.
        refused: Called with file, line and error for each line that cannot be used; the others are
            yielded. None raises the first.
        columns: Which column names a row's picture: the first of these that it has, else the only
            one that ends in `_file_name`.

    Raises:
        OSError: A file cannot be read.
        ValueError: A file is in another encoding, no JSON, CSV or Parquet, or names a picture
            outside the folder; names file and line.
    """
    folder = Path(folder)
    for path in metadata_files(folder, unless=unless):
        read = {".jsonl": _read_jsonl, ".csv": _read_csv, ".parquet": _read_parquet}[path.suffix]
        beside = PurePosixPath(path.parent.relative_to(folder).as_posix())
        for number, found in read(path):
            try:
                fields = found if isinstance(found, dict) else found()
                name = _file_name(path.parent, fields, columns, place_of(path, number))
            except ValueError as error:
                if refused is None:
                    raise
                refused(path, number, error)
                continue
            yield Row(file=path, number=number, file_name=str(beside / name), fields=fields)


def _file_name(
    folder: Path, fields: dict[str, Any], wanted: Sequence[str], place: str
) -> PurePosixPath:
    """Return the picture's path relative to the metadata file."""
    ending = [name for name in fields if name == _COLUMN or name.endswith(f"_{_COLUMN}")]
    named = [name for name in wanted if name in fields]
    column = named[0] if named else ending[0] if len(ending) == 1 else None
    if column is None:
        raise ValueError(f"{place}: wanted the field {_COLUMN!r}, got {sorted(map(str, fields))}")
    name = fields[column]
    if not isinstance(name, str) or not name:
        raise ValueError(f"{place}: {column!r}: wanted a path, got {name!r}")
    texts_of(name, f"{place}: {column!r}")  # a half surrogate pair would stand for a foreign byte
    path, windows = PurePosixPath(name), PureWindowsPath(name)
    if windows.root or "://" in name or ".." in windows.parts:
        raise ValueError(f"{place}: {column!r}: wanted a path inside the folder, got {name!r}")
    # Windows writes sub\1.png, which on other systems may be the name of a file
    if "\\" in name and not os.path.exists(folder / path):
        path = PurePosixPath(windows.as_posix())
    return path


_Fields = dict[str, Any] | Callable[[], dict[str, Any]]
"""The columns of a row, or what gives them or raises a ValueError."""


def _read_jsonl(path: Path) -> Iterator[tuple[int, _Fields]]:
    for number, line in read_lines(path):
        if line and not line.isspace():
            yield number, partial(parse_object, line, place_of(path, number))


def _read_csv(path: Path) -> Iterator[tuple[int, _Fields]]:
    number = 0

    def lines() -> Iterator[str]:
        nonlocal number
        for number, line in read_lines(path):  # noqa: B007 (read by the loop below)
            yield f"{line}\n"

    rows = csv.DictReader(lines(), strict=True)
    try:
        for row in rows:
            yield number, partial(_whole, row, len(rows.fieldnames or ()), place_of(path, number))
    except csv.Error as error:
        raise ValueError(f"{place_of(path, number)}: wanted CSV, got: {error}") from None


def _whole(row: dict[str, Any], count: int, place: str) -> dict[str, Any]:
    if None in row or None in row.values():
        raise ValueError(f"{place}: wanted {count} cells, as in the first line, got others")
    return row


def _read_parquet(path: Path) -> Iterator[tuple[int, _Fields]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            rows = (row for batch in file.iter_batches() for row in batch.to_pylist())
            yield from enumerate(rows, 1)
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise ValueError(f"{shown(path)}: wanted a Parquet file of UTF-8, got: {error}") from None
