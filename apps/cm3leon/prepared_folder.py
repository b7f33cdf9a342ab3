"""Whether a prepared folder is finished, and is the one that a run was trained on."""

from __future__ import annotations

from pathlib import Path

from cm3leon import VERSION
from cm3leon.fingerprint import fingerprint_of
from cm3leon.stages import read_object

PREPARED_FILE = "prepared.json"
"""In a folder that apps/prepare.py made, written last: version and fingerprint of its contents."""


def fingerprint_of_prepared(folder: Path) -> str:
    """Return the fingerprint of a prepared folder.

    Raises:
        FileNotFoundError: It is not there, or not finished.
        ValueError: Another version made it.
    """
    path = folder / PREPARED_FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such file; wanted a folder that apps/prepare.py has finished"
        )
    found = read_object(path, "version", "fingerprint")
    if found["version"] != VERSION:
        raise ValueError(f"{path}: made by cm3leon {found['version']}, this is {VERSION}")
    return found["fingerprint"]


def check_prepared(root: Path, folder: Path) -> None:
    """Refuse a run whose prepared folder is missing or is not the one that it was trained on.

    Raises:
        FileNotFoundError: There is no finished prepared folder.
        ValueError: It has been made anew, or by another version.
    """
    wanted = fingerprint_of("prepared", fingerprint_of_prepared(folder), [])
    try:
        found = read_object(root / "prepared" / "stage.json").get("fingerprint")
    except (OSError, ValueError):
        found = None
    if found != wanted:
        raise ValueError(
            f"{root}: trained on another {folder} than is there now; run apps/pretrain.py again"
        )
