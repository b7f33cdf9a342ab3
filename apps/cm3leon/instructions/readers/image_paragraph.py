"""Image Paragraph: `paragraphs_v1.json`, and the splits' ids in `{train,val,test}_split.json`.

The split files lie beside it. Pictures are Visual Genome's, `IMAGE_ID.jpg`. A picture that no split
has is left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from cm3leon.instructions.example import Example, Examples
from cm3leon.instructions.readers.annotations import (
    NotNeeded,
    attempt,
    field,
    line_of,
    of_kind,
    read_json,
    split_of,
)
from cm3leon.instructions.readers.picture_folder import PictureFolder
from cm3leon.instructions.sets import Split


def read_paragraphs(files: Sequence[Path], pictures: PictureFolder) -> Examples:
    """Yield the paragraphs, one a picture."""
    for path in files:
        splits: dict[int, Split] = {}
        for name in ("train", "val", "test"):
            listed = path.with_name(f"{name}_split.json")
            for number in read_json(listed, list):
                splits[of_kind(number, int, listed.name)] = split_of(name)
        make = partial(_example, path, pictures, splits)
        for place, record in enumerate(read_json(path, list), 1):
            key = record.get("image_id", place) if isinstance(record, dict) else place
            yield attempt(path, f"image {key}", make, record)


def _example(
    path: Path, pictures: PictureFolder, splits: Mapping[int, Split], record: Any
) -> Example:
    number, caption = field(record, "image_id", int), line_of(record, "paragraph")
    if number not in splits:
        raise NotNeeded("in no split")
    return Example(
        name=str(number),
        texts={"caption": caption},
        pictures={"image": pictures.named(f"{number}.jpg")},
        facts={"image_id": number, "captions": [caption]},
        split=splits[number],
        source=f"{path.name}: {number}.jpg",
    )
