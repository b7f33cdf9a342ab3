"""What every saved artifact shares: the lines that say who wrote it, and the atomic write."""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cm3_texttok.interface import COMPONENT, INTERFACE_VERSION


def header() -> dict[str, str]:
    """The two entries that open every saved dictionary."""
    return {"component": COMPONENT, "interface_version": INTERFACE_VERSION}


def check_header(saved: Mapping[str, Any], source: str) -> None:
    """Refuses what another component, or another major version of this one, has written.

    Args:
        saved: The dictionary that was read.
        source: What to call it in the error, for example its file name.

    Raises:
        ValueError: It is not ours to read.
    """
    component, version = saved.get("component"), saved.get("interface_version")
    if component != COMPONENT:
        raise ValueError(f"{source}: wanted component {COMPONENT!r}, got {component!r}")
    major = INTERFACE_VERSION.partition(".")[0]
    if not isinstance(version, str) or version.partition(".")[0] != major:
        raise ValueError(f"{source}: wanted interface_version {major}.x, got {version!r}")


def write_file(path: Path, data: bytes) -> None:
    """Writes the whole file or leaves what was there.

    Raises:
        OSError: The write failed (disk full, no permission); nothing half-written remains.
    """
    temporary = None
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # mkstemp makes the file private
        os.replace(temporary, path)
        temporary = None
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise OSError(error.errno, f"could not write: {error.strerror}", str(path)) from error
    finally:
        if temporary is not None:
            os.unlink(temporary)
