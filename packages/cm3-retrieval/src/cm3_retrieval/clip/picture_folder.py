"""A folder of pictures as documents.

Takes a folder, with captions in `metadata.jsonl` (`file_name`, `text`; Hugging Face's imagefolder)
or in `NAME.txt` beside `NAME.png`, or without captions; gives paths, captions and pictures.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from cm3_retrieval.picture_file import SUFFIXES, list_files


@dataclass(frozen=True, kw_only=True)
class PictureFile:
    """One document on disk."""

    path: Path
    """Absolute path of the picture."""

    caption: str | None
    """Its caption, or None."""


def picture_files(folder: Path | str) -> list[PictureFile]:
    """List the pictures in a folder and its subfolders, in the order of their paths.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: It holds no picture, or `metadata.jsonl` is broken.
    """
    folder = Path(folder).resolve()
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: wanted a folder of pictures, there is none")
    captions = _listed_captions(folder)
    files = []
    for path in list_files(folder):
        beside = path.with_suffix(".txt")
        caption = captions.get(path.relative_to(folder).as_posix())
        if caption is None and beside.is_file():
            caption = beside.read_text(encoding="utf-8", errors="replace").strip()
        files.append(PictureFile(path=path, caption=caption or None))
    if not files:
        raise ValueError(f"{folder}: wanted pictures ({', '.join(SUFFIXES)}), found none")
    return files


def _listed_captions(folder: Path) -> dict[str, str]:
    path = folder / "metadata.jsonl"
    captions: dict[str, str] = {}
    if not path.is_file():
        return captions
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            captions[row["file_name"]] = str(row.get("text", row.get("caption", "")))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f'{path}, line {number}: wanted {{"file_name": ..., "text": ...}}, '
                f"got {line[:80]!r}"
            ) from error
    return captions
