"""A task's examples, cut into ranges that workers read apart.

The annotation files are read in one process, as long as no range is noted; a range has what its
examples say as JSON, and where their pictures lie, and needs no annotation file any more.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from cm3_train.artifact import atomic_file, write_json
from cm3leon.data.pairs import key_of
from cm3leon.data.raw_files import Unusable
from cm3leon.instructions.example import Example, Found, Picture, PictureFile, Unneeded
from cm3leon.instructions.parquet_picture import ParquetPicture
from cm3leon.instructions.readers.forms import Reader
from cm3leon.preparation.source import Shard
from cm3leon.stages import read_object

Value = TypeVar("Value")
ROWS = 2048
"""Examples of a range: what a kill can cost a worker."""


class ExampleRanges:
    """Ranges of a task's examples, noted as JSON lines.

    Args:
        folder: The task's published files; pictures are noted by their paths from it.
        work: Takes the ranges.
    """

    def __init__(self, folder: Path, work: Path) -> None:
        self.folder, self.work = folder, work / "ranges"

    def shards(self, reader: Reader) -> list[Shard]:
        """List the ranges; they are noted now if they were not before."""
        listed = self.work / "ranges.json"
        if not listed.is_file():
            shards = []
            for number, lines in enumerate(chunks(self._lines(reader), ROWS)):
                name = f"{number:06}.jsonl"
                with atomic_file(self.work / name) as file:
                    file.writelines(lines)
                shards.append(Shard(file=name, rows=len(lines)))
            write_json(listed, {"shards": [asdict(shard) for shard in shards]})
        return [Shard(**shard) for shard in read_object(listed, "shards")["shards"]]

    def read(self, shard: Shard) -> Iterator[Found]:
        """Yield the examples of a range, and what stands in the place of some."""
        with open(self.work / shard.file, encoding="utf-8") as lines:
            for line in lines:
                yield self._recalled(json.loads(line))

    def fingerprint(self, reader: Reader) -> str:
        """Return a hash of all examples, and of sizes and times of their files."""
        digest, facts = hashlib.sha256(), {}
        for path in reader.files:
            digest.update(_facts_of(path))
        for line in self._lines(reader):
            digest.update(line)
            for picture in json.loads(line).get("pictures", {}).values():
                path = self.folder / picture["path"]
                if path not in facts:
                    facts = {path: _facts_of(path)}  # the captions of a picture stand together
                digest.update(facts[path])
        return digest.hexdigest()

    def _lines(self, reader: Reader) -> Iterator[bytes]:
        """Yield the notes of what a reader finds; a name that occurs again is unusable."""
        seen: set[int] = set()
        for found in reader.read():
            if isinstance(found, Example):
                found = self._once(found, seen)
            yield (json.dumps(self._noted(found)) + "\n").encode()

    def _once(self, example: Example, seen: set[int]) -> Found:
        try:
            key = key_of(example.name)
        except UnicodeEncodeError:
            reason = "name: wanted Unicode, got half a surrogate pair"
        else:
            if key not in seen:
                seen.add(key)
                return example
            reason = "wanted each record once, got this one again"
        return Unusable(file=example.source, key=example.name, reason=reason)

    def _noted(self, found: Found) -> dict[str, Any]:
        if not isinstance(found, Example):
            return vars(found)
        pictures = {name: self._place(picture) for name, picture in found.pictures.items()}
        return {**vars(found), "pictures": pictures}

    def _place(self, picture: Picture) -> dict[str, Any]:
        assert isinstance(picture, PictureFile | ParquetPicture), picture
        return {**vars(picture), "path": os.path.relpath(picture.path, self.folder)}

    def _recalled(self, noted: dict[str, Any]) -> Found:
        if "reason" in noted:
            return Unusable(**noted) if "key" in noted else Unneeded(**noted)
        pictures = {name: self._picture(place) for name, place in noted["pictures"].items()}
        boxes = tuple((label, tuple(box)) for label, box in noted["boxes"])
        return Example(**{**noted, "pictures": pictures, "boxes": boxes})

    def _picture(self, place: dict[str, Any]) -> Picture:
        kind = ParquetPicture if "row" in place else PictureFile
        return kind(**{**place, "path": self.folder / place["path"]})


def chunks(values: Iterable[Value], size: int) -> Iterator[list[Value]]:
    """Yield lists of `size` values, the last of what is left."""
    left = iter(values)
    while chunk := list(islice(left, size)):
        yield chunk


def _facts_of(path: Path) -> bytes:
    try:
        facts = path.stat()
    except (OSError, ValueError):
        return b"missing\n"  # its record says so
    return b"%d %d\n" % (facts.st_size, facts.st_mtime_ns)
