"""Parquet files with captions and the bytes of pictures, as img2dataset and others write them.

Each row group is a shard and is read in small batches.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cm3_retrieval.metadata_file import Row
from cm3_retrieval.picture_file import shown
from cm3leon.data.raw_files import Unusable
from cm3leon.preparation.source import Record, Shard, files_of

NAMES = ("image", "jpg", "jpeg", "png", "webp", "picture", "img", "bytes")
"""What a column of pictures may be called."""
BATCH = 64
"""Rows in memory at once."""


class ParquetPairs:
    """A `Source` of Parquet files with a column of pictures.

    The column is of binary values, or of structs with `bytes` in them, as Hugging Face's are. Rows
    that img2dataset could not download have none; they are left out.

    Args:
        folder: The files, in subfolders too.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def shards(self) -> list[Shard]:
        """List the row groups of all files.

        Raises:
            ValueError: A file is no Parquet, or no column holds pictures.
        """
        found = []
        for name in files_of(self.folder, ".parquet"):
            path = self.folder / name
            try:
                with pq.ParquetFile(path) as file:
                    column_of_pictures(file.schema_arrow, path)
                    groups = [file.metadata.row_group(i) for i in range(file.num_row_groups)]
            except pa.ArrowException as error:
                raise ValueError(f"{shown(path)}: wanted a Parquet file, got: {error}") from None
            found += [Shard(file=name, part=i, rows=g.num_rows) for i, g in enumerate(groups)]
        return found

    def read(self, shard: Shard) -> Iterator[Record | Unusable]:
        """Yield the rows of a row group that have a picture, or should have one.

        Of a group that cannot be read to its end, each row that is left counts as unusable.
        """
        path, seen = self.folder / shard.file, 0
        try:
            with pq.ParquetFile(path) as file:
                column = column_of_pictures(file.schema_arrow, path)
                before = sum(file.metadata.row_group(i).num_rows for i in range(shard.part))
                for batch in file.iter_batches(BATCH, row_groups=[shard.part]):
                    for fields in _rows_of(batch):
                        seen += 1
                        number = before + seen
                        if isinstance(fields, Exception):
                            key, reason = f"row {number}", f"{type(fields).__name__}: {fields}"
                            yield Unusable(file=shard.file, key=key, reason=reason)
                            continue
                        content = fields.pop(column)
                        if isinstance(content, dict):
                            content = content.get("bytes")
                        if fields.get("status", "success") != "success":
                            continue
                        yield self._record(shard, path, number, fields, content)
        except (pa.ArrowException, OSError, ValueError) as error:
            for row in range(seen + 1, (shard.rows or seen + 1) + 1):
                key = f"row group {shard.part}, row {row}"
                yield Unusable(file=shard.file, key=key, reason=str(error))

    def _record(
        self, shard: Shard, path: Path, number: int, fields: dict[str, Any], content: bytes | None
    ) -> Record | Unusable:
        if not content:
            reason = "wanted the bytes of a picture, got none"
            return Unusable(file=shard.file, key=f"row {number}", reason=reason)
        name = f"{shard.file}/{number}"
        row = Row(file=path, number=number, file_name=name, fields=fields)
        return Record(row=row, read=lambda: content)


def _rows_of(batch: pa.RecordBatch) -> Iterator[dict[str, Any] | Exception]:
    """Yield the rows, and in a row's place why Python has no value for it: no UTF-8, no date."""
    try:
        rows = batch.to_pylist()
    except (ValueError, OverflowError):
        for place in range(batch.num_rows):
            try:
                yield batch.slice(place, 1).to_pylist()[0]
            except (ValueError, OverflowError) as error:
                yield error
    else:
        yield from rows


def column_of_pictures(schema: pa.Schema, path: Path) -> str:
    """Return the column that holds pictures: one of `NAMES`, or the only one of such a type.

    Raises:
        ValueError: There is none, or it is not clear which.
    """
    fitting = [field.name for field in schema if _holds_bytes(field.type)]
    named = [name for name in NAMES if name in fitting]
    if not named and len(fitting) != 1:
        raise ValueError(
            f"{shown(path)}: wanted a column of pictures' bytes called one of {NAMES}, "
            f"got {schema.names}"
        )
    return named[0] if named else fitting[0]


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return any(field.name == "bytes" and _holds_bytes(field.type) for field in kind)
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
