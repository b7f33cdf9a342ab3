"""A folder of pictures as documents.

Takes a folder, with captions in its metadata (`cm3_retrieval.metadata_file`), or in `NAME.txt`
beside `NAME.png`, or without captions; gives paths and captions.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from cm3_retrieval.metadata_file import metadata_files, read_metadata
from cm3_retrieval.picture_file import SUFFIXES, list_files, shown
from cm3_retrieval.text_file import read_text


@dataclass(frozen=True, kw_only=True)
class PictureFile:
    """One document on disk."""

    path: Path
    """Absolute path of the picture."""
    captions: tuple[str, ...] = ()
    """Its captions, none twice."""

    @property
    def caption(self) -> str | None:
        """All captions, one a line; None if there is none."""
        return "\n".join(self.captions) or None


@dataclass(frozen=True, kw_only=True)
class PictureFolder:
    """The documents of a folder, and what is none."""

    files: list[PictureFile]
    """The documents, in the order of their paths."""
    lost: list[str]
    """Places, `file:line`, of metadata whose picture is not there, each with the picture's name."""
    unlisted: int
    """Pictures that the metadata do not list, which are no documents; 0 without metadata."""
    unnamed: list[str]
    """Pictures whose name is no UTF-8, which are no documents."""


def picture_files(folder: Path | str) -> PictureFolder:
    """List the pictures in a folder and its subfolders.

    Where there is metadata, only listed pictures count; a picture that is listed several times has
    several captions. `NAME.txt` counts for pictures without a caption in the metadata.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: It holds no picture, or metadata or a text file that is broken.
    """
    folder = Path(folder).resolve()
    if not folder.is_dir():
        raise FileNotFoundError(f"{shown(folder)}: wanted a folder of pictures, there is none")
    if not _is_utf8(folder):
        raise ValueError(f"{shown(folder)}: wanted a folder whose path is UTF-8")
    listed = bool(metadata_files(folder))
    captions, lost = _listed_captions(folder)
    paths = list_files(folder)
    known = [path for path in paths if _is_utf8(path)]
    if listed:
        known = sorted({*map(folder.joinpath, captions)})
    files = []
    for path in known:
        found = captions.get(path.relative_to(folder).as_posix(), [])
        if not found and (beside := path.with_suffix(".txt")).is_file():
            found = [text] if (text := read_text(beside).strip()) else []
        files.append(PictureFile(path=path, captions=tuple(dict.fromkeys(found))))
    if not files:
        wanted = f"pictures ({', '.join(SUFFIXES)})"
        if listed:
            wanted = "pictures that its metadata list"
        also = f"; {len(lost)} are listed and not there, the first at {lost[0]}" if lost else ""
        raise ValueError(f"{shown(folder)}: wanted {wanted}, found none{also}")
    return PictureFolder(
        files=files,
        lost=lost,
        unlisted=len({*paths} - {*known}) if listed else 0,
        unnamed=[shown(path) for path in paths if not _is_utf8(path)],
    )


def _is_utf8(path: Path) -> bool:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def _listed_captions(folder: Path) -> tuple[dict[str, list[str]], list[str]]:
    """Return file name -> captions of the pictures that are there, and the rows of the others."""
    captions: dict[str, list[str]] = {}
    lost: list[str] = []
    for row in read_metadata(folder):
        texts = row.captions
        if os.path.isfile(folder / row.file_name):
            captions.setdefault(row.file_name, []).extend(texts)
        else:
            lost.append(f"{row.place}: {shown(row.file_name)}")
    return captions, lost
