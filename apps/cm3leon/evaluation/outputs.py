"""What a model made for a task, on disk: chunks that are whole or not there.

    OUT/TASK/task.json            what the outputs are of
    OUT/TASK/chunk-000000.npz     arrays of the records from this place on
    OUT/TASK/NAME/000000.png      a picture of each record, for each output NAME that is pictures

Anyone can look at the pictures, and measure them with other tools.
"""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cm3_imagetok import load_image
from cm3_train.artifact import atomic_file, write_json
from cm3leon.evaluation.tasks.interface import Outputs
from cm3leon.stages import read_object

TASK_FILE = "task.json"
PICTURES = "_pictures"
"""In a chunk: which of the outputs are pictures."""


class SavedPictures:
    """Pictures (N, H, W, 3) uint8 in a folder, read when they are asked for.

    Args:
        folder: Has `000000.png` and so on.
        count: N.
    """

    def __init__(self, folder: Path, count: int) -> None:
        self.folder, self.count = folder, count

    def __len__(self) -> int:
        """Return N."""
        return self.count

    def __getitem__(self, place: Any) -> np.ndarray:
        """Return one picture (H, W, 3), or those (n, H, W, 3) of a slice or of places (n,)."""
        if isinstance(place, slice):
            place = range(*place.indices(self.count))
        if np.ndim(place) == 0:
            return self._read(int(place))
        return np.stack([self._read(int(one)) for one in place])

    def _read(self, place: int) -> np.ndarray:
        return np.asarray(load_image(_picture(self.folder, place)))


def chunked(
    folder: Path,
    said: dict[str, Any],
    count: int,
    size: int,
    make: Callable[[int, int], Outputs],
    progress: Callable[[int, int], None],
) -> dict[str, Any]:
    """Return the outputs of `count` records, made now where they are not there yet.

    Args:
        folder: Of the task. Outputs of other `said` that are there are removed.
        said: What the outputs depend on, as JSON values.
        count: Records.
        size: Records of a chunk.
        make: (first, stop) -> outputs of these records.
        progress: Called with (records done, records in all).

    Returns:
        Arrays of N rows by name, and `SavedPictures`.

    Raises:
        ValueError: The folder holds other files, or a chunk is damaged.
    """
    path = folder / TASK_FILE
    if not path.is_file() and folder.is_dir() and any(folder.iterdir()):
        raise ValueError(f"{folder}: wanted the folder of a task, or none, got one of other files")
    if not path.is_file() or read_object(path) != json.loads(json.dumps(said)):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        write_json(path, said)
    parts: list[dict[str, np.ndarray]] = []
    pictures: set[str] = set()
    for first in range(0, count, size):
        stop = min(count, first + size)
        chunk = folder / f"chunk-{first:06}.npz"
        found = _read(chunk) if chunk.is_file() else None
        if found is None or not _shown(folder, found[PICTURES], range(first, stop)):
            _write(folder, chunk, first, make(first, stop))
            found = _read(chunk)
        pictures |= set(found.pop(PICTURES).tolist())
        parts.append(found)
        progress(stop, count)
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return joined | {name: SavedPictures(folder / name, count) for name in pictures}


def _shown(folder: Path, names: np.ndarray, places: range) -> bool:
    """Tell whether all pictures of a chunk are there: a power cut may leave empty ones."""
    files = [_picture(folder / name, at) for name in names for at in places]
    return all(file.is_file() and file.stat().st_size for file in files)


def _read(chunk: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(io.BytesIO(chunk.read_bytes()), allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{chunk}: wanted what an evaluation has kept, got a damaged file ({error}); remove "
            "it, and it is made again"
        ) from None


def _write(folder: Path, chunk: Path, first: int, outputs: Outputs) -> None:
    """Write pictures, then the chunk that says that they are whole."""
    arrays = {}
    names = [name for name, values in outputs.items() if values.dtype == np.uint8]
    for name, values in outputs.items():
        if name not in names:
            arrays[name] = values.astype(str) if values.dtype == object else values
            continue
        (folder / name).mkdir(exist_ok=True)
        for place, picture in enumerate(values, first):
            _save(picture, _picture(folder / name, place))
    with atomic_file(chunk) as file:
        np.savez(file, allow_pickle=False, **arrays, **{PICTURES: np.array(names, dtype=str)})


def _save(picture: np.ndarray, path: Path) -> None:
    """Write a PNG; it need not be whole if this is killed, since the chunk is then missing."""
    try:
        Image.fromarray(picture).save(path, "PNG", compress_level=1)
    except OSError as error:
        raise OSError(error.errno, f"could not write {path}: {error.strerror or error}") from error


def _picture(folder: Path, place: int) -> Path:
    return folder / f"{place:06}.png"
