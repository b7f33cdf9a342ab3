"""Where figures come from: files of weights that the user brings, and versions of tools."""

from __future__ import annotations

import hashlib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def weight_file(name: str, path: Path, published: str) -> Path:
    """Return the path of a file of weights.

    Args:
        name: The argument it was given as.
        path: The file, or a folder that has it under its published name.
        published: Whose it is and its name: `torchvision's vgg16-397923af.pth`.

    Raises:
        ValueError: There is no such file; says which is wanted and where it goes.
    """
    wanted = Path(path)
    if wanted.is_dir():
        wanted /= published.split()[-1]
    if not wanted.is_file():
        raise ValueError(
            f"{name}: wanted {published}, got no file at {wanted}; put it there (nothing is "
            "downloaded), or name the file or its folder"
        )
    return wanted


def sha256_of_weights(path: Path) -> str:
    """Return the SHA-256 of a file, hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tool_version(package: str) -> str | None:
    """Return the version of an installed package, None where it runs from a source tree."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
