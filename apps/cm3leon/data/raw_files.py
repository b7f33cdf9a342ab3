"""What all readers of strangers' files share: no name inside a file is trusted, no size either."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

from cm3_retrieval.picture_file import MAX_BYTES
from cm3_retrieval.text_file import texts_of


@dataclass(frozen=True, kw_only=True)
class Unusable:
    """A record, or the rest of a file, that cannot be used."""

    file: str
    key: str
    """The record's name or place; empty for a whole file."""
    reason: str


def refused_name(name: str) -> str | None:
    """Tell why a name inside a file is no plain relative path of Unicode, or None."""
    windows = PureWindowsPath(name)
    outside = windows.root or windows.drive or PurePosixPath(name).is_absolute()
    if not name or outside or "://" in name or ".." in windows.parts:
        return f"wanted a path inside the archive, got {name!r}"
    try:
        texts_of(name, "name")  # tarfile gives half a surrogate pair for a byte that is no UTF-8
    except ValueError as error:
        return str(error)
    return None


def read_file(path: Path) -> bytes:
    """Read a regular file; of one that is too large a byte more than `load_image` takes.

    Raises:
        OSError: It is missing or cannot be read.
        ValueError: It is a device or a pipe.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise ValueError("wanted a regular file")
    with open(path, "rb") as file:
        return file.read(MAX_BYTES + 1)
