"""WebDataset tars as img2dataset writes them: `KEY.jpg|png|webp`, `KEY.txt`, `KEY.json` a picture.

A tar's headers are read first and its members grouped by key, so members may stand in any order and
none waits in memory for another. Pictures whose download failed are not in a tar.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from cm3_retrieval.metadata_file import Row
from cm3_retrieval.picture_file import MAX_BYTES
from cm3_retrieval.text_file import parse_object
from cm3leon.data.raw_files import Unusable, refused_name
from cm3leon.preparation.source import Record, Shard, files_of
from cm3leon.stages import read_object

PICTURES = (".jpg", ".jpeg", ".png", ".webp")
TEXTS = (".txt", ".json")
MOST_TEXT = 2**20
"""Bytes of the largest caption or description that is read."""


class WebDataset:
    """A `Source` of tars; each tar is a shard.

    Where img2dataset's `KEY_stats.json` stand beside tars, a tar without one is not finished.

    Args:
        folder: The tars, in subfolders too.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def shards(self) -> list[Shard]:
        """List the tars."""
        return [Shard(file=file, rows=self._rows(file)) for file in files_of(self.folder, ".tar")]

    def read(self, shard: Shard) -> Iterator[Record | Unusable]:
        """Yield the pictures of a tar, in the order in which their keys come first."""
        path = self.folder / shard.file
        marked = next(path.parent.glob("*_stats.json"), None) is not None
        if marked and not _stats(path).is_file():
            reason = (
                f"wanted {_stats(path).name} beside it, which img2dataset writes at a tar's end"
            )
            yield Unusable(file=shard.file, key="", reason=reason)
            return
        try:
            archive = tarfile.open(path, "r:")
        except (tarfile.TarError, EOFError) as error:
            yield Unusable(file=shard.file, key="", reason=f"wanted a plain tar, got: {error}")
            return
        with archive:
            groups, bad = _groups(archive, path, shard.file)
            yield from bad
            for number, (key, members) in enumerate(groups.items(), 1):
                yield _record(archive, path, shard.file, number, key, members)

    def _rows(self, file: str) -> int | None:
        try:
            found = read_object(_stats(self.folder / file), "successes")["successes"]
        except (OSError, ValueError):
            return None
        return found if isinstance(found, int) else None


def _stats(tar: Path) -> Path:
    return tar.with_name(f"{tar.stem}_stats.json")


def _groups(
    archive: tarfile.TarFile, path: Path, file: str
) -> tuple[dict[str, dict[str, tarfile.TarInfo]], list[Unusable]]:
    """Return the members by key and ending, and what cannot be used."""
    groups: dict[str, dict[str, tarfile.TarInfo]] = {}
    bad: list[Unusable] = []
    size = path.stat().st_size
    members = iter(archive)
    while True:
        try:
            member = next(members)
        except StopIteration:
            if not _ends_as_it_should(archive, path):
                bad.append(Unusable(file=file, key="", reason="the tar is cut off: it has no end"))
            return groups, bad
        except (tarfile.TarError, EOFError, ValueError) as error:
            bad.append(Unusable(file=file, key="", reason=f"the tar is cut off or broken: {error}"))
            return groups, bad
        if member.isdir():
            continue
        name = PurePosixPath(member.name)
        stem, _, ending = name.name.partition(".")
        key, ending = str(name.with_name(stem)) if stem else member.name, f".{ending.lower()}"
        reason = refused_name(member.name)
        if reason is None and not member.isreg():
            reason = "wanted a regular file, got a link or a device"
        if reason is None and member.offset_data + member.size > size:
            reason = "the tar is cut off in this member"
        if reason is not None:
            bad.append(Unusable(file=file, key=member.name, reason=reason))
        elif ending in PICTURES or ending in TEXTS:
            groups.setdefault(key, {})[ending] = member


def _ends_as_it_should(archive: tarfile.TarFile, path: Path) -> bool:
    """Tell whether zeros end a tar; tarfile takes any header that it cannot read for an end."""
    with open(path, "rb") as file:
        file.seek(archive.offset)
        return file.read(tarfile.BLOCKSIZE) == bytes(tarfile.BLOCKSIZE)


def _record(
    archive: tarfile.TarFile,
    path: Path,
    file: str,
    number: int,
    key: str,
    members: dict[str, tarfile.TarInfo],
) -> Record | Unusable:
    picture = next((members[ending] for ending in PICTURES if ending in members), None)
    if picture is None:
        return Unusable(file=file, key=key, reason="wanted a picture, got its texts alone")
    try:
        fields: dict[str, Any] = {}
        if ".json" in members:
            fields = parse_object(_read(archive, members[".json"], MOST_TEXT), f"{file}: {key}")
        if ".txt" in members:
            text = _read(archive, members[".txt"], MOST_TEXT).decode()
            fields["text"] = text if text.strip() else fields.get("text")
    except (OSError, ValueError, tarfile.TarError) as error:
        return Unusable(file=file, key=key, reason=str(error))
    row = Row(file=path, number=number, file_name=f"{file}/{key}", fields=fields)
    return Record(row=row, read=lambda: _read(archive, picture, MAX_BYTES))


def _read(archive: tarfile.TarFile, member: tarfile.TarInfo, most: int) -> bytes:
    if member.size > most:
        raise ValueError(f"wanted at most {most} bytes, got {member.size}")
    stream = archive.extractfile(member)
    if stream is None:
        raise ValueError("wanted a regular file")
    content = stream.read()
    if len(content) != member.size:
        raise ValueError(f"wanted {member.size} bytes, got {len(content)}: the tar is cut off")
    return content
