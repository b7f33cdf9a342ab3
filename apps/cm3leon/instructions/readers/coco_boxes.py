"""Boxes of COCO, and of what is published in its form, such as Objects365.

Files: `instances_SUBSET.json`, with `captions_SUBSET.json` beside it where there are captions, or
`zhiyuan_objv2_SUBSET.json`. The name tells the split. Pictures by the last part of `file_name`,
since Objects365 has moved some to other folders.

A picture is one example, with its first caption; without one the names of its things stand in (see
`locations`). Boxes of crowds, of things that are pictures themselves (`isfake`) and without area
are left out, and so are pictures without any other.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cm3leon.data.pairs import MOST_PIXELS
from cm3leon.data.raw_files import Unusable
from cm3leon.instructions.example import Box, Example, Examples
from cm3leon.instructions.readers.annotations import (
    NotNeeded,
    attempt,
    by_id,
    entries,
    field,
    line_of,
    of_kind,
    read_json,
    short,
    split_of,
)
from cm3leon.instructions.readers.coco import Captions, captions_of, image_of, licences_of
from cm3leon.instructions.readers.picture_folder import PictureFolder


def read_boxes(files: Sequence[Path], pictures: PictureFolder) -> Examples:
    """Yield one example for each picture that has boxes, in pixels."""
    for path in files:
        head = read_json(path, dict)
        images, bad = by_id(path, entries(path, head, "images"))
        categories, worse = by_id(path, entries(path, head, "categories"))
        yield from (*bad, *worse)
        things: defaultdict[int, list[dict[str, Any]]] = defaultdict(list)
        for place, thing in enumerate(entries(path, head, "annotations"), 1):
            try:
                things[image_of(thing, images)].append(thing)
            except ValueError as error:
                yield Unusable(file=path.name, key=f"annotation {place}", reason=str(error))
        captions: Captions = {}
        beside = path.with_name(path.name.replace("instances_", "captions_"))
        if beside != path and beside.is_file():
            captions, bad = captions_of(beside, read_json(beside, dict), images)
            yield from bad
        boxed = _Boxed(path, things, categories, captions, licences_of(path, head), pictures)
        for number, image in images.items():
            yield attempt(path, f"image {number}", boxed.example, number, image)


@dataclass(frozen=True)
class _Boxed:
    """A file's boxes by picture, and what belongs to them."""

    path: Path
    things: dict[int, list[dict[str, Any]]]
    categories: dict[int, dict[str, Any]]
    captions: Captions
    licences: dict[str, str]
    pictures: PictureFolder

    def example(self, number: int, image: dict[str, Any]) -> Example:
        boxes = tuple(self._boxes(number))
        if not boxes:
            raise NotNeeded("no box in the picture")
        name, captions = field(image, "file_name", str), self.captions.get(number)
        split = split_of(self.path.name)
        return Example(
            name=f"{split}/{number}",
            texts={"caption": captions[0][1]} if captions else {},
            pictures={"image": self.pictures.named(name)},
            boxes=boxes,
            facts={"image_id": number},
            split=split,
            source=f"{self.path.name}: {name}",
            licence=self.licences.get(str(image.get("license")), ""),
        )

    def _boxes(self, number: int) -> Iterator[tuple[str, Box]]:
        for thing in self.things.get(number, ()):
            if thing.get("iscrowd") or thing.get("isfake"):
                continue
            category = field(thing, "category_id", int)
            if category not in self.categories:
                raise ValueError(
                    f"category_id: wanted one of the file's categories, got {category}"
                )
            box = corners_of(field(thing, "bbox", list))
            if box is not None:
                yield line_of(self.categories[category], "name"), box


def corners_of(box: list[Any]) -> Box | None:
    """Return the corners of (x, y, width, height), or None for a box without area.

    Raises:
        ValueError: It is no list of four numbers of at most `MOST_PIXELS`.
    """
    values = [of_kind(value, float, "bbox") for value in box]
    if len(values) != 4 or not all(abs(value) <= MOST_PIXELS for value in values):
        raise ValueError(f"bbox: wanted four numbers of pixels, got {short(box)}")
    x, y, width, height = values
    return (x, y, x + width, y + height) if width > 0 and height > 0 else None
