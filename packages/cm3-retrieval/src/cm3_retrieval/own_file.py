"""Single files that a command writes: each says who wrote it, so that no other one is replaced."""

from __future__ import annotations

import os
from pathlib import Path

from cm3_retrieval.picture_file import shown

MARK = "written by cm3-retrieval"
"""Stands near the beginning of each such file, in a comment of its format."""
_BEGINNING = 512


def check_output(option: str, path: Path | None) -> None:
    """Refuse an output before any work: it cannot be made, or would replace another's file.

    Args:
        option: What the user calls it, such as `--html`.
        path: Where to write; None is no output.

    Raises:
        ValueError: The folder is not there, or the file is and lacks `MARK`.
    """
    if path is None:
        return
    if not path.parent.is_dir():
        raise ValueError(f"{option}: wanted a folder that is there, got {shown(path.parent)}")
    if not os.path.lexists(path):
        return
    own = False
    if path.is_file() and not path.is_symlink():
        with open(path, "rb") as file:
            own = MARK.encode() in file.read(_BEGINNING)
    if not own:
        raise ValueError(
            f"{option}: {shown(path)} is there already, and cm3-retrieval did not write it; "
            "wanted another name"
        )
