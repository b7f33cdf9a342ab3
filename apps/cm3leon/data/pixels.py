"""The pictures of a run: decoded once to one size, memory-mapped from then on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cm3_imagetok import ImageError, load_image, square
from cm3_train.artifact import write_json
from cm3leon.data.pairs import DataError, Pairs
from cm3leon.stages import read_object


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """Captioned pictures that could be read, with their pixels."""

    pairs: Pairs
    """Those that are left."""
    decoded: np.ndarray
    """(M, H, W, 3) uint8 of all pictures of the folder, each once, memory-mapped."""
    places: np.ndarray
    """(N,) place in `decoded` of each pair that is left; captions of a picture share it."""
    boxes: list[list[list[float]]]
    """M lists of boxes, in pixels of the decoded pictures."""
    skipped: list[str]
    """A message for each picture that could not be read."""

    def pixels(self, rows: np.ndarray) -> np.ndarray:
        """Return the pixels (B, H, W, 3) uint8 of pairs by their rows."""
        return np.asarray(self.decoded[self.places[rows]])

    def places_of(self, *splits: str) -> np.ndarray:
        """Return the places in `decoded` of whole splits, each once."""
        return np.unique(self.places[self.pairs.rows(*splits)])


def write_pictures(
    source: Path, pairs: Pairs, size: int, folder: Path, progress: Callable[[int, int], None]
) -> None:
    """Decode all pictures, each once, into `pixels.npy` (M, size, size, 3) uint8; `pictures.json`.

    Args:
        source: The folder that the pairs come from.
        pairs: Which pictures.
        size: Side in pixels; the shorter side is resized to it and the centre is cropped.
        folder: Takes the two files. Rows of broken pictures are white.
        progress: Called with (done, total).
    """
    row_of = dict(zip(reversed(pairs.files), reversed(range(len(pairs))), strict=True))
    files = list(dict.fromkeys(pairs.files))
    boxes: list[list[list[float]]] = []
    skipped: dict[str, str] = {}
    # written, not mapped: on a full disk a map dies of SIGBUS where a write raises OSError
    with open(folder / "pixels.npy", "wb") as stream:
        shape = (len(files), size, size, 3)
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(stream, header)
        for place, file in enumerate(files):
            try:
                picture = load_image(source / file)
                stream.write(np.asarray(square(picture, size)).tobytes())
                found = pairs.boxes[row_of[file]]
                boxes.append([cropped(box, *picture.size, size) for box in found])
            except ImageError as error:
                stream.write(b"\xff" * (size * size * 3))
                skipped[str(place)] = str(error)
                boxes.append([])
            progress(place + 1, len(files))
    write_json(folder / "pictures.json", {"skipped": skipped, "boxes": boxes})


def open_pictures(source: Path, pairs: Pairs, folder: Path) -> Pictures:
    """Open what `write_pictures` wrote for the same pairs.

    Raises:
        DataError: No readable picture is left in one of the splits.
    """
    found = read_object(folder / "pictures.json", "skipped", "boxes")
    place_of = {file: place for place, file in enumerate(dict.fromkeys(pairs.files))}
    places = np.array([place_of[file] for file in pairs.files])
    good = np.flatnonzero(~np.isin(places, [int(place) for place in found["skipped"]]))
    left = pairs.take(good)
    for split in ("train", "validation", "test"):
        if not len(left.rows(split)):
            raise DataError(f"{source}: no readable picture is left in {split}")
    return Pictures(
        pairs=left,
        decoded=np.load(folder / "pixels.npy", mmap_mode="r"),
        places=places[good],
        boxes=found["boxes"],
        skipped=list(found["skipped"].values()),
    )


def cropped(box: list[float], width: int, height: int, size: int) -> list[float]:
    """Return a box of a picture in pixels of its centre square at `size`; it may lie outside."""
    shorter = min(width, height)
    left, top = (width - shorter) / 2, (height - shorter) / 2
    scale = size / shorter
    x0, y0, x1, y1 = box
    return [(x0 - left) * scale, (y0 - top) * scale, (x1 - left) * scale, (y1 - top) * scale]
