"""Lightning's checkpoints, written atomically and checked on load.

A checkpoint is an ordinary `torch.save` file: a zip archive. Its SHA-256 stands in the archive's
comment, so that file and hash can never be of two different saves, and `torch.load` and unzip read
the file as ever. Loading never unpickles code (`weights_only=True`).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from lightning.fabric.plugins import CheckpointIO

from cm3_train.artifact import atomic_file, check_stamp, stamp
from cm3_train.interface import INTERFACE_VERSION

COMPONENT = "cm3-train/checkpoint"
_END_OF_ARCHIVE = b"PK\x05\x06"
_END_LENGTH = 22
_DIGEST_LENGTH = 64


class AtomicCheckpointIO(CheckpointIO):
    """Saves a checkpoint whole or not at all; refuses a damaged one."""

    def save_checkpoint(
        self, checkpoint: Mapping[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Write `checkpoint` to `path`.

        Raises:
            OSError: The disk is full; an older file at `path` is untouched.
        """
        if storage_options is not None:
            raise TypeError(f"storage_options: wanted None, got {storage_options!r}")
        path = Path(path)
        with atomic_file(path) as file:
            try:
                torch.save({**checkpoint, **stamp(COMPONENT, INTERFACE_VERSION)}, file)
            except RuntimeError as error:
                raise _disk_error(error) or error from None
            _append_digest(file)

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: Any = "cpu",
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Read the checkpoint at `path`; `weights_only` is always true, whatever is asked for.

        Raises:
            FileNotFoundError: Nothing there.
            ValueError: The file is damaged, cut short or no checkpoint of ours.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such checkpoint")
        check_digest(path)
        checkpoint = torch.load(path, map_location=map_location, weights_only=True)
        check_stamp(checkpoint, COMPONENT, INTERFACE_VERSION, path)
        return checkpoint

    def remove_checkpoint(self, path: str | Path) -> None:
        """Delete the file, if it is there."""
        Path(path).unlink(missing_ok=True)


def _append_digest(file: BinaryIO) -> None:
    """Turn the end of the archive into one with a comment: the hash of all that stands before it.

    The last two of the 22 bytes at the archive's end hold the comment's length, 0 as torch writes.
    """
    file.seek(-_END_LENGTH, os.SEEK_END)
    if file.read(4) != _END_OF_ARCHIVE:
        raise RuntimeError("torch.save wrote no plain zip archive")
    file.seek(-2, os.SEEK_END)
    file.write(_DIGEST_LENGTH.to_bytes(2, "little"))
    length = file.tell()
    file.seek(0)
    digest = _digest(file, length)
    file.seek(length)
    file.write(digest)


def check_digest(path: Path) -> None:
    """Refuse a file that is not as it was written; reads every byte.

    Raises:
        OSError: It cannot be read.
        ValueError: It is damaged, cut short or was not written here.
    """
    size = path.stat().st_size
    with open(path, "rb") as file:
        wanted = _digest(file, size - _DIGEST_LENGTH)
        stored = file.read()
    if stored != wanted:
        raise ValueError(
            f"{path}: damaged or cut short, or not written here: wanted a file whose last "
            f"{_DIGEST_LENGTH} bytes are the SHA-256 of the rest, got another end "
            f"(the file has {size} bytes)"
        )


def _digest(file: BinaryIO, length: int) -> bytes:
    """Return the SHA-256, as hex, of the next `length` bytes of `file`."""
    digest = hashlib.sha256()
    while length > 0 and (block := file.read(min(length, 1 << 20))):
        digest.update(block)
        length -= len(block)
    return digest.hexdigest().encode()


def _disk_error(error: BaseException) -> OSError | None:
    """Find the OSError that torch's writer wraps into a RuntimeError."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__context__
    return cause
