"""What every saved artifact shares: who wrote it, and a write that is whole or not there.

The same file stands in each package that saves something, since no package imports another; a test
of the repository keeps the copies equal.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO


def stamp(component: str, version: str) -> dict[str, str]:
    """Return the two entries by which a saved artifact says what it is.

    Args:
        component: Package and part, such as `cm3-model/decoder`.
        version: The package's `INTERFACE_VERSION`.
    """
    return {"component": component, "interface_version": version}


def check_stamp(
    artifact: object,
    component: str,
    version: str,
    source: object,
    error: type[Exception] = ValueError,
) -> dict[str, Any]:
    """Return the artifact as a dict, or refuse it: another component, another major version.

    Args:
        artifact: What was read.
        component: The component that is wanted.
        version: The version of the reader, of which the major part must match.
        source: What to call the artifact in the message, such as its path.
        error: The exception to raise.

    Raises:
        error: Names the source, what was wanted and what came.
    """
    if not isinstance(artifact, Mapping):
        raise error(f"{source}: wanted component {component!r}, got {type(artifact).__name__}")
    found = artifact.get("component")
    if found != component:
        raise error(f"{source}: wanted component {component!r}, got {found!r}")
    made, major = str(artifact.get("interface_version")), version.partition(".")[0]
    if made.partition(".")[0] != major:
        raise error(f"{source}: wanted interface version {major}.x of {component}, got {made}")
    return dict(artifact)


@contextmanager
def atomic_file(
    path: Path | str, *, name: Callable[[BinaryIO], str] | None = None
) -> Iterator[BinaryIO]:
    """Open a file for writing and reading back; it appears under its name only when complete.

    A temporary file in the same folder, fsync, rename, fsync of the folder: a reader sees what was
    there before or the whole new file. Its `name` is the temporary path, for writers that want one.

    Args:
        path: The file to write; its folder is made if missing.
        name: Called with the complete file, gives its final name in place of the path's own.

    Raises:
        OSError: The file could not be written, say on a full disk; names `path`. No temporary file
            is left, and an older file is untouched.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "x+b") as file:
            mode = os.fstat(file.fileno()).st_mode
            yield file
        # Opened anew: a writer that got the path may have put another file there, as safetensors
        # does, with rights for the owner alone.
        with open(temporary, "rb") as file:
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
            final = path if name is None else path.with_name(name(file))
        os.replace(temporary, final)
        _sync_folder(path.parent)
    except OSError as error:
        raise OSError(error.errno, f"could not write {path}: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path | str, content: Mapping[str, Any]) -> None:
    """Write a JSON object, indented, whole or not at all; errors as of `atomic_file`."""
    with atomic_file(path) as file:
        file.write((json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())


def sha256_of_file(path: Path | str) -> str:
    """Return the SHA-256 of a file's bytes as hex digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
