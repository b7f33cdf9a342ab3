"""Open Images' boxes: `*annotations-bbox.csv`, and the names of classes beside it.

Columns `ImageID, LabelName, XMin, XMax, YMin, YMax, IsGroupOf, IsDepiction` among others, in shares
of the picture's sides. Classes: `*class-descriptions*.csv`, of `LabelName,DisplayName` with or
without that header. Pictures: `IMAGEID.jpg`. The name (`train-`, `validation-`, `test-`) tells the
split. Boxes of groups and depictions are left out, and so are pictures without any other.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path

from cm3_retrieval.picture_file import shown
from cm3_retrieval.text_file import read_lines
from cm3leon.data.raw_files import Unusable
from cm3leon.instructions.example import Box, Example, Examples
from cm3leon.instructions.readers.annotations import (
    NotNeeded,
    attempt,
    matching,
    one_line,
    split_of,
)
from cm3leon.instructions.readers.picture_folder import PictureFolder

SIDES = ("XMin", "YMin", "XMax", "YMax")
CLASSES = "*class-descriptions*.csv"
COLUMNS = ("ImageID", "LabelName", *SIDES, "IsGroupOf", "IsDepiction")


def read_open_images(files: Sequence[Path], pictures: PictureFolder) -> Examples:
    """Yield one example for each picture; the rows of a picture stand together.

    Raises:
        ValueError: There are no names of classes, or a column is missing; names the file.
    """
    for path in files:
        bad: list[Unusable] = []
        make = partial(_example, path, pictures, _classes(path.parent))
        for name, boxes in groupby(_records(path, bad), lambda record: record["ImageID"]):
            yield attempt(path, name, make, name, list(boxes))
        yield from bad


def _example(
    path: Path,
    pictures: PictureFolder,
    classes: Mapping[str, str],
    name: str,
    records: list[dict[str, str]],
) -> Example:
    boxes = tuple(_boxes(classes, records))
    if not boxes:
        raise NotNeeded("no box in the picture")
    return Example(
        name=name,
        texts={},
        pictures={"image": pictures.named(f"{name}.jpg")},
        boxes=boxes,
        boxes_are_shares=True,
        facts={"image_id": name},
        split=split_of(path.name),
        source=f"{path.name}: {name}.jpg",
    )


def _boxes(classes: Mapping[str, str], records: list[dict[str, str]]) -> Iterator[tuple[str, Box]]:
    for record in records:
        if "1" in (record["IsGroupOf"], record["IsDepiction"]):
            continue
        label = record["LabelName"]
        if label not in classes:
            raise ValueError(f"LabelName: wanted one of the named classes, got {label!r}")
        x0, y0, x1, y1 = (float(record[side]) for side in SIDES)
        if not (0 <= x0 <= x1 <= 1 and 0 <= y0 <= y1 <= 1):
            raise ValueError(f"box: wanted 0 <= min <= max <= 1, got {(x0, y0, x1, y1)}")
        if x0 < x1 and y0 < y1:
            yield classes[label], (x0, y0, x1, y1)


def _records(path: Path, bad: list[Unusable]) -> Iterator[dict[str, str]]:
    """Yield the rows by their columns; those with too few cells or too many are bad."""
    header = next(_rows(path), [])
    if missing := set(COLUMNS) - set(header):
        raise ValueError(f"{shown(path)}: wanted the columns {sorted(missing)} too")
    for number, row in enumerate(_rows(path), 1):
        if number == 1:
            continue
        if len(row) == len(header):
            yield dict(zip(header, row, strict=True))
        elif row:
            reason = f"wanted {len(header)} cells, got {len(row)}"
            bad.append(Unusable(file=path.name, key=f"row {number}", reason=reason))


def _classes(folder: Path) -> dict[str, str]:
    """Return the names of classes; the header, where there is one, does no harm as a class."""
    files = list(matching(folder, (CLASSES,)))
    if not files:
        raise ValueError(f"{shown(folder)}: wanted {CLASSES} beside the boxes, got none")
    rows = [row for path in files for row in _rows(path) if row]
    if wrong := [row for row in rows if len(row) != 2 or not all(map(one_line, row))]:
        raise ValueError(f"{shown(files[0])}: wanted LabelName,DisplayName, got {wrong[0]}")
    return {label: one_line(name) for label, name in rows}


def _rows(path: Path) -> Iterator[list[str]]:
    lines = (line for _, line in read_lines(path))
    try:
        yield from csv.reader(lines, strict=True)
    except csv.Error as error:
        raise ValueError(f"{shown(path)}: wanted CSV, got: {error}") from None
