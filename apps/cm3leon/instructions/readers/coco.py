"""COCO's captions, in its own form and in Karpathy's.

Files: `captions_SUBSET.json`, whose name tells the split, or `dataset_coco.json` and
`dataset_flickr30k.json`, which say it of each picture. Pictures by the last part of their names.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cm3_retrieval.picture_file import shown
from cm3leon.data.raw_files import Unusable
from cm3leon.instructions.example import Examples
from cm3leon.instructions.readers.annotations import (
    by_id,
    entries,
    field,
    line_of,
    one_line,
    read_json,
    split_of,
)
from cm3leon.instructions.readers.captioned import captioned
from cm3leon.instructions.readers.picture_folder import PictureFolder
from cm3leon.instructions.sets import Split

Captions = dict[int, list[tuple[object, str]]]
"""By a picture's id: (the caption's id, caption)."""


def read_captions(files: Sequence[Path], pictures: PictureFolder) -> Examples:
    """Yield the captions of all files; pictures that have none give nothing."""
    for path in files:
        split, head = split_of(path.name), read_json(path, dict)
        images, bad = by_id(path, entries(path, head, "images"))
        yield from bad
        licences = licences_of(path, head)
        said, unusable = captions_of(path, head, images)
        yield from unusable
        for number, captions in said.items():
            image = images[number]
            try:
                name = field(image, "file_name", str)
                yield from captioned(
                    f"{split}/{number}",
                    captions,
                    pictures.named(name),
                    split=split,
                    source=f"{path.name}: {name}",
                    licence=licences.get(str(image.get("license")), ""),
                    facts={"image_id": number},
                )
            except ValueError as error:
                for own, _ in captions:
                    yield Unusable(file=path.name, key=f"annotation {own}", reason=str(error))


def read_karpathy(files: Sequence[Path], pictures: PictureFolder) -> Examples:
    """Yield the captions of `dataset_flickr30k.json` or `dataset_coco.json`, Karpathy's splits.

    His `restval`, what is left of COCO's validation pictures, is training, as in his work.
    """
    splits: dict[str, Split] = {
        "train": "train", "restval": "train", "val": "validation", "test": "test",
    }  # fmt: skip
    for path in files:
        for place, image in enumerate(entries(path, read_json(path, dict), "images"), 1):
            try:
                name, split = field(image, "filename", str), field(image, "split", str)
                if split not in splits:
                    raise ValueError(f"split: wanted one of {list(splits)}, got {split!r}")
                captions: list[tuple[object, str]] = []
                for own, sentence in enumerate(field(image, "sentences", list)):
                    try:
                        captions.append((own, line_of(sentence, "raw")))
                    except ValueError as error:
                        yield Unusable(file=path.name, key=f"{name}#{own}", reason=str(error))
                yield from captioned(
                    name,
                    captions,
                    pictures.named(name),
                    split=splits[split],
                    source=f"{path.name}: {name}",
                    facts={"image_id": image.get("cocoid", name)},
                )
            except ValueError as error:
                yield Unusable(file=path.name, key=f"image {place}", reason=str(error))


def captions_of(
    path: Path, head: dict[str, Any], images: dict[int, dict[str, Any]]
) -> tuple[Captions, list[Unusable]]:
    """Return the captions by picture, in the order of the pictures, and those without use."""
    found: Captions = {}
    bad = []
    for place, one in enumerate(entries(path, head, "annotations"), 1):
        try:
            number, caption = image_of(one, images), line_of(one, "caption")
            found.setdefault(number, []).append((field(one, "id", int), caption))
        except ValueError as error:
            bad.append(Unusable(file=path.name, key=f"annotation {place}", reason=str(error)))
    return {number: found[number] for number in images if number in found}, bad


def image_of(annotation: object, images: dict[int, dict[str, Any]]) -> int:
    """Return the id of an annotation's image.

    Raises:
        ValueError: It has none, or none of the file's.
    """
    number = field(annotation, "image_id", int)
    if number not in images:
        raise ValueError(f"image_id: wanted one of the file's images, got {number}")
    return number


def licences_of(path: Path, head: dict[str, Any]) -> dict[str, str]:
    """Return the names of licences by their numbers as text, where the file has them."""
    listed = head.get("licenses") or []
    if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
        raise ValueError(f"{shown(path)}: licenses: wanted a list of objects")
    return {str(one.get("id")): one_line(str(one.get("name") or "")) for one in listed}
