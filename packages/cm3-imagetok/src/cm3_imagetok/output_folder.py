"""The folder that a command writes to: a result beside no source, and in place of no other file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

from cm3_imagetok.artifact import atomic_file
from cm3_imagetok.picture_file import shown

WRITTEN = ".cm3-imagetok"
"""File of a folder that lists what was written there, so that a command can be run again."""


class OutputFolder:
    """Where each source's result goes.

    Args:
        folder: The folder; made with the first result.
        sources: Files, each with its name in the folder that was given, such as `sub/0.png`.
        ending: Ending of the results: `sub/0.png` becomes `sub/0.npy`.

    Raises:
        ValueError: Two sources would become one file, or a result would replace a source or a file
            that no command of this package wrote.
    """

    def __init__(self, folder: Path, sources: Sequence[tuple[Path, Path]], ending: str) -> None:
        self._folder = folder
        try:
            self._written = set((folder / WRITTEN).read_bytes().split(b"\n"))
        except FileNotFoundError:
            self._written = set()
        self._names: dict[Path, Path] = {}
        real = {source.resolve() for source, _ in sources}
        taken: dict[Path, Path] = {}
        for source, name in sources:
            name = name.with_suffix(ending)
            other, target = taken.setdefault(name, source), folder / name
            if other != source:
                raise ValueError(
                    f"{shown(other)} and {shown(source)} would both become {shown(name)}"
                )
            if target.resolve() in real:
                raise ValueError(
                    f"--out: {shown(target)} would replace a file that is read; "
                    "wanted another folder"
                )
            if bytes(name) not in self._written and target.is_symlink() | target.exists():
                raise ValueError(
                    f"--out: {shown(target)} is there already, and cm3-imagetok did not write it; "
                    "wanted another folder"
                )
            self._names[source] = name

    def write(self, source: Path, content: Callable[[BinaryIO], object]) -> Path:
        """Write the result of a source, whole or not at all, and return its path."""
        name = self._names[source]
        with atomic_file(self._folder / name) as file:
            content(file)
        if bytes(name) not in self._written:
            with open(self._folder / WRITTEN, "ab") as file:
                file.write(bytes(name) + b"\n")
            self._written.add(bytes(name))
        return self._folder / name
