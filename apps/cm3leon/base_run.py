"""Whether the run that a tuned one started from is still the one that it was."""

from __future__ import annotations

from pathlib import Path

from cm3leon.fingerprint import fingerprint_of
from cm3leon.stages import check_finished, read_object

BASE_STAGE = "base"
"""The stage of a tuned run that notes what it started from."""


def base_fingerprint(base: Path) -> str:
    """Return the fingerprint of a run's decoder, and so of all that it was made from.

    Raises:
        FileNotFoundError: The run is missing or not finished.
        ValueError: Another version made it, or a stage was made anew since.
    """
    check_finished(base, "decoder")
    return read_object(base / "decoder" / "stage.json", "fingerprint")["fingerprint"]


def check_base(root: Path, base: Path) -> None:
    """Refuse a tuned run whose base is missing, or was made anew since; errors as above."""
    wanted = fingerprint_of(BASE_STAGE, base_fingerprint(base), [])
    found = read_object(root / BASE_STAGE / "stage.json", "fingerprint")["fingerprint"]
    if found != wanted:
        raise ValueError(f"{root}: tuned from another {base} than is there now; tune it again")
