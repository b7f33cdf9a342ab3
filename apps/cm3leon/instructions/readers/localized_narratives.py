"""Localized Narratives: `*localized_narratives*.jsonl`, read line by line.

Pictures are those of COCO (`000000000139.jpg`, though `image_id` is "139"), Flickr30k, ADE20k and
Open Images (`image_id` and `.jpg`); `dataset_id`, such as `mscoco_train2017`, tells which and the
split. The voices, traces and times are left alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from cm3_retrieval.text_file import parse_object, read_lines
from cm3leon.instructions.example import Example, Examples
from cm3leon.instructions.readers.annotations import attempt, field, line_of, split_of
from cm3leon.instructions.readers.picture_folder import PictureFolder


def read_narratives(files: Sequence[Path], pictures: PictureFolder) -> Examples:
    """Yield the narratives of all files; a picture may have several."""
    for path in files:
        make = partial(_example, path, pictures)
        for number, line in read_lines(path):
            if line.strip():
                yield attempt(path, f"line {number}", make, number, line)


def _example(path: Path, pictures: PictureFolder, number: int, line: str) -> Example:
    record = parse_object(line, f"{path.name}:{number}")
    data, image = field(record, "dataset_id", str), field(record, "image_id", str)
    caption = line_of(record, "caption")
    name = (
        f"{int(image):012}.jpg" if "coco" in data.lower() and image.isdecimal() else f"{image}.jpg"
    )
    return Example(
        name=f"{data}/{image}/{path.name}:{number}",
        texts={"caption": caption},
        pictures={"image": pictures.named(name)},
        facts={"image_id": image, "dataset_id": data, "captions": [caption]},
        split=split_of(data),
        source=f"{path.name}: {name}",
    )
