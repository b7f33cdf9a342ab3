"""SHA-256 of what is released, in the form that `sha256sum --check SHA256SUMS` reads.

`python release/checksums.py dist` writes `dist/SHA256SUMS`; with `--check` it compares.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from pathlib import Path

NAME = "SHA256SUMS"


def released(dist: Path) -> list[Path]:
    """List the wheels and sdists of a folder by name."""
    return sorted([*dist.glob("*.whl"), *dist.glob("*.tar.gz")])


def sums_of(dist: Path) -> str:
    """Give the checksums' lines: 64 hex digits, two blanks, a name."""
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}" for path in released(dist)
    ]
    return "".join(f"{line}\n" for line in lines)


def differences(dist: Path) -> list[str]:
    """Tell which files are missing, changed, or not in the list."""
    written = (dist / NAME).read_text(encoding="utf-8").splitlines()
    before = {name: digest for digest, name in (line.split("  ", 1) for line in written)}
    now = {
        name: digest
        for digest, name in (line.split("  ", 1) for line in sums_of(dist).splitlines())
    }
    return [
        *(f"{name} is missing" for name in sorted(before.keys() - now.keys())),
        *(f"{name} is not in {NAME}" for name in sorted(now.keys() - before.keys())),
        *(
            f"{name} has changed"
            for name in sorted(before.keys() & now.keys())
            if before[name] != now[name]
        ),
    ]


def main(arguments: list[str] | None = None) -> int:
    """Run; gives the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dist", type=Path, help="folder of wheels and sdists")
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    given = parser.parse_args(arguments)
    if given.check:
        wrong = differences(given.dist)
        print("\n".join(wrong) or f"all files are as {NAME} says")
        return 1 if wrong else 0
    lines = sums_of(given.dist)
    (given.dist / NAME).write_text(lines, encoding="utf-8")
    print(lines, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
