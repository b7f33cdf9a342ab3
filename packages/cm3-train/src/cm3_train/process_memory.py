"""The most memory that a process has had; imports no torch."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")


def peak_bytes() -> int:
    """Return the most bytes of memory that this process has held, mapped files' pages included.

    On Linux `getrusage` starts a child at its parent's peak; the kernel's own mark does not.
    """
    if _STATUS.exists():  # some sandboxes have no such mark in it
        marks = [line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM")]
        if marks:
            return int(marks[0].split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
