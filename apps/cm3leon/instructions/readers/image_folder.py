"""Records of any task in a Hugging Face imagefolder, its columns named like the task's fields.

A text `{x}` is the column `x`; for `caption` also `text`, Hugging Face's name for it. A picture
`[x]` is the column `x_file_name`; for `image` also `file_name`. Paths are relative to the metadata
file. `objects`, with `bbox` (a list of x, y, width, height in pixels) and `categories` (a list of
names), are boxes. `split`, `group`, `licence` and `source` mean what they mean for pairs; without
`split`, groups, else pictures, are held out by a hash. All other columns are facts.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from cm3_retrieval.metadata_file import Row, read_metadata
from cm3_texttok import Task
from cm3leon.data.raw_files import Unusable
from cm3leon.instructions.example import Box, Example, Examples, Picture, split_by_hash
from cm3leon.instructions.readers.annotations import attempt, field, of_kind
from cm3leon.instructions.readers.coco_boxes import corners_of
from cm3leon.instructions.readers.picture_folder import PictureFolder
from cm3leon.instructions.sets import SPLITS, Split

FILE = "file_name"
KNOWN = ("objects", "split", "group", "licence", "license", "source")


def read_image_folder(task: Task, folder: Path) -> Examples:
    """Yield the rows of all metadata files in a folder and its subfolders."""
    bad: list[Unusable] = []

    def refused(path: Path, number: int, error: ValueError) -> None:
        file = path.relative_to(folder).as_posix()
        bad.append(Unusable(file=file, key=f"line {number}", reason=str(error)))

    make = partial(_example, task, PictureFolder(folder), folder)
    columns = (FILE, *(f"{name}_{FILE}" for name in task.pictures))
    for row in read_metadata(folder, refused=refused, columns=columns):
        yield from bad
        bad.clear()
        yield attempt(row.file, f"line {row.number}", make, row)
    yield from bad


def _example(task: Task, pictures: PictureFolder, folder: Path, row: Row) -> Example:
    fields = {name: value for name, value in row.fields.items() if value is not None}
    if "caption" not in fields and "text" not in task.texts and "text" in fields:
        fields["caption"] = fields.pop("text")
    texts = {name: field(fields, name, str).strip() for name in task.texts if name in fields}
    beside = row.file.parent.relative_to(folder).as_posix()
    named: dict[str, str] = {}
    for name in task.pictures:
        if f"{name}_{FILE}" in fields:
            named[name] = str(PurePosixPath(beside) / field(fields, f"{name}_{FILE}", str))
        elif name == "image" and FILE in fields:
            named[name] = row.file_name
    found: dict[str, Picture] = {name: pictures.at(path) for name, path in named.items()}
    used = {*texts, *KNOWN, FILE, *(f"{name}_{FILE}" for name in task.pictures)}
    facts = {name: value for name, value in fields.items() if name not in used}
    return Example(
        name=f"{row.file_name}\n{json.dumps([named, texts])}",
        texts=texts,
        pictures=found,
        boxes=_boxes(fields["objects"]) if "objects" in fields else (),
        facts=json.loads(json.dumps(facts, default=str)),  # Parquet has dates and bytes
        split=_split(fields, str(fields.get("group") or row.file_name)),
        source=str(fields.get("source") or row.file_name),
        licence=str(fields.get("licence") or fields.get("license") or ""),
    )


def _split(fields: dict[str, Any], group: str) -> Split:
    split = fields.get("split") or split_by_hash(group)
    if split not in SPLITS:
        raise ValueError(f"split: wanted one of {SPLITS}, got {split!r}")
    return split


def _boxes(objects: object) -> tuple[tuple[str, Box], ...]:
    boxes, names = field(objects, "bbox", list), field(objects, "categories", list)
    if len(boxes) != len(names):
        raise ValueError(f"objects: wanted a category a box, got {len(names)} for {len(boxes)}")
    found = []
    for box, name in zip(boxes, names, strict=True):
        corners = corners_of(of_kind(box, list, "bbox"))
        if corners is not None:
            found.append((of_kind(name, str, "categories"), corners))
    return tuple(found)
