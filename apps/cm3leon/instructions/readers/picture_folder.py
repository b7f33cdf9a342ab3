"""Pictures that annotations name, wherever below a folder they lie.

Publishers put them into `train2014`, `images`, `VG_100K_2` and so on, and annotations mostly say
the last part of the path alone, which is unique in a set.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path, PurePosixPath

from cm3_retrieval.picture_file import list_files
from cm3leon.data.raw_files import refused_name
from cm3leon.instructions.example import PictureFile


class PictureFolder:
    """Pictures by their names.

    Args:
        folder: They lie in it or its subfolders, and are listed at the first question for one.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def _paths(self) -> dict[str, Path]:
        return {path.name: path for path in reversed(list_files(self.folder))}

    def named(self, name: str) -> PictureFile:
        """Return the picture whose file has the last part of a name.

        Raises:
            OSError: The folder cannot be read.
            ValueError: The name leads outside, or there is no such picture.
        """
        if refused := refused_name(name):
            raise ValueError(refused)
        path = self._paths.get(PurePosixPath(name).name)
        if path is None:
            raise ValueError(f"wanted the picture {name}, got no such file")
        return PictureFile(path)

    def at(self, *parts: str) -> PictureFile:
        """Return the picture at an exact place below the folder; errors as of `named`."""
        name = "/".join(parts)
        if refused := refused_name(name):
            raise ValueError(refused)
        path = self.folder / name
        if not path.is_file():
            raise ValueError(f"wanted the picture {name}, got no such file")
        return PictureFile(path)
