"""Pictures with metadata (Hugging Face imagefolder), the metadata cut into ranges.

`metadata.jsonl`, `.csv` or `.parquet`, in subfolders too, are read once, line by line, and noted in
files of some thousand rows, which workers read apart, lines that cannot be used among them.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from itertools import count
from pathlib import Path
from typing import Any

from cm3_retrieval.metadata_file import Row, read_metadata
from cm3_train.artifact import atomic_file, write_json
from cm3leon.data.raw_files import Unusable, read_file
from cm3leon.preparation.source import Record, Shard
from cm3leon.stages import read_object

ROWS = 2048
"""Rows of a range: what a kill can cost a worker."""


class ImageFolder:
    """A `Source` of pictures in files.

    Args:
        folder: The pictures and their metadata.
        work: Takes the ranges.
        rows: Rows of a range.
    """

    def __init__(self, folder: Path, work: Path, rows: int = ROWS) -> None:
        self.folder, self.work, self.rows = folder, work / "ranges", rows

    def shards(self) -> list[Shard]:
        """List the ranges; they are noted now if they were not before."""
        listed = self.work / "ranges.json"
        if not listed.is_file():
            write_json(listed, {"shards": [asdict(shard) for shard in self._cut()]})
        return [Shard(**shard) for shard in read_object(listed, "shards")["shards"]]

    def read(self, shard: Shard) -> Iterator[Record | Unusable]:
        """Yield the rows of a range."""
        with open(self.work / shard.file, encoding="utf-8") as lines:
            for line in lines:
                noted = json.loads(line)
                if "reason" in noted:
                    yield Unusable(**noted)
                    continue
                row = Row(**{**noted, "file": self.folder / noted["file"]})
                path = self.folder / row.file_name
                yield Record(row=row, read=lambda path=path: read_file(path))

    def _cut(self) -> Iterator[Shard]:
        bad: list[dict[str, Any]] = []

        def refused(path: Path, number: int, error: ValueError) -> None:
            file = path.relative_to(self.folder).as_posix()
            bad.append({"file": file, "key": f"line {number}", "reason": str(error)})

        rows = read_metadata(self.folder, unless="stage.json", refused=refused)
        for number in count():
            noted: list[dict[str, Any]] = []
            for row in rows:
                file = row.file.relative_to(self.folder).as_posix()
                noted += [*bad, {**vars(row), "file": file}]
                bad.clear()
                if len(noted) >= self.rows:
                    break
            else:
                noted += bad
                bad.clear()
            if not noted:
                return
            name = f"{number:06}.jsonl"
            with atomic_file(self.work / name) as file:
                for line in noted:
                    file.write((json.dumps(line, default=_number) + "\n").encode())
            yield Shard(file=name, rows=len(noted))


def fingerprint_of_pictures(folder: Path) -> str:
    """Return a hash of the sizes and times of the pictures that metadata list, one stat each.

    Only the current line is in memory. Lines that cannot be used count by their metadata alone.

    Raises:
        OSError: A file of metadata cannot be read.
        ValueError: A file of metadata is in another encoding, or broken.
    """
    digest = hashlib.sha256()
    for row in read_metadata(folder, unless="stage.json", refused=lambda *_: None):
        try:
            facts = os.stat(folder / row.file_name)
        except (OSError, ValueError):
            continue
        name = os.fsencode(row.file_name)
        digest.update(b"%s\0%d %d\n" % (name, facts.st_size, facts.st_mtime_ns))
    return digest.hexdigest()


def _number(value: Any) -> Any:
    """Return what JSON has words for, of a value that Parquet gave: dates and bytes as text."""
    return value.item() if hasattr(value, "item") else str(value)
