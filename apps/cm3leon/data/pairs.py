"""Captioned pictures from a folder with metadata (Hugging Face imagefolder).

`metadata.jsonl`, `.csv` or `.parquet`, one kind, in the folder or its subfolders, with `file_name`
and `text`. A picture that is listed several times, or with a list of texts, has several captions.

Optional columns: `split` (one of `SPLITS`), `group` (pictures of one group never stand in training
and in a held-out set at once), `category` (judges drawn pictures), `boxes` (faces and salient
objects, which the image tokenizer can be told to weigh more) and `facts` (what a picture shows; see
`Pairs.facts`). Without `split`, whole groups are held out at random; without `group`, pictures with
the same caption are one group.

Splits: "train"; "validation", for choices while training; "test", for the figures. Three more may
stand beside them: "variants", small changes of training pictures; "things", pictures of things that
are nowhere in training; and "shown", other pictures of those things, out of training too, for a
memory that is shown a thing before it is asked for.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cm3_retrieval.caption_groups import groups_of
from cm3_retrieval.metadata_file import Row, metadata_files, read_metadata
from cm3_retrieval.picture_file import shown
from cm3_retrieval.text_file import place_of, texts_of

SPLITS = ("train", "validation", "test", "variants", "things", "shown")
HELD_OUT = ("validation", "test", "things", "shown")
"""Splits whose groups are never in training."""
MOST_PIXELS = 2**31
"""What no corner of a box lies beyond; JSON may hold numbers that no float can."""
STAGE = "stage.json"
"""File of a finished stage of a run: the embedded set's metadata beside it is no data of a folder
that runs are kept in."""


class DataError(ValueError):
    """A data folder that cannot be used; the message names the file, line and cause."""


@dataclass(frozen=True)
class Pairs:
    """N captioned pictures."""

    keys: np.ndarray
    """(N,) int64, a hash of the file name: stays when pictures are added. A further caption of a
    picture hashes its caption too."""
    files: list[str]
    """Paths relative to the folder; one for each caption of a picture."""
    captions: list[str]
    split: np.ndarray
    """(N,) of `SPLITS`."""
    groups: list[str]
    categories: list[str]
    """Empty strings where the metadata has none."""
    boxes: list[list[list[float]]]
    """Faces and salient objects of each picture, (x0, y0, x1, y1) in pixels of the upright one."""
    facts: list[dict[str, Any] | None]
    """What each picture shows, or None: {"kind": str, "background": str, "things": [{"name": str,
    "colour": str, "natural": bool, "box": [x0, y0, x1, y1]}]}, boxes in pixels as in `boxes`."""

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self.files)

    @property
    def group_numbers(self) -> np.ndarray:
        """(N,) a number for each pair's group."""
        return np.unique(self.groups, return_inverse=True)[1]

    def rows(self, *splits: str) -> np.ndarray:
        """Return the row numbers of the given splits."""
        return np.flatnonzero(np.isin(self.split, splits))

    def take(self, rows: np.ndarray) -> Pairs:
        """Return the pairs at `rows`, in that order."""
        pick = [int(i) for i in rows]
        return Pairs(
            self.keys[rows],
            [self.files[i] for i in pick],
            [self.captions[i] for i in pick],
            self.split[rows],
            [self.groups[i] for i in pick],
            [self.categories[i] for i in pick],
            [self.boxes[i] for i in pick],
            [self.facts[i] for i in pick],
        )


def key_of(file_name: str) -> int:
    """Return the 63-bit key of a picture."""
    return int.from_bytes(hashlib.blake2b(file_name.encode(), digest_size=8).digest()) >> 1


def read_pairs(
    folder: Path, *, validation_share: float = 0.05, test_share: float = 0.05, seed: int = 0
) -> Pairs:
    """Read the metadata; the pictures are only looked for, not opened.

    Raises:
        DataError: No metadata, a line that is not as wanted, a picture that is not there.
    """
    try:
        written = metadata_files(folder, unless=STAGE)
        if not written:
            raise DataError(
                f"{shown(folder / 'metadata.jsonl')}: no such file; "
                f"wanted one JSON object a line with file_name and text"
            )
        found = [row for listed in read_metadata(folder, unless=STAGE) for row in rows_of(listed)]
    except ValueError as error:
        raise DataError(str(error)) from None
    whole = shown(written[0] if len(written) == 1 else folder)
    if not found:
        raise DataError(f"{whole}: wanted at least one captioned picture, got none")
    once: dict[tuple[str, ...], dict[str, Any]] = {}
    for row in found:
        once.setdefault((row["file_name"], row["text"], row.get("split") or ""), row)
    rows = list(once.values())
    files = [row["file_name"] for row in rows]
    missing = [row for row in rows if not os.path.isfile(folder / row["file_name"])]
    if missing:
        first = missing[0]
        raise DataError(
            f"{place_of(*first['place'])}: wanted the picture {first['file_name']!r}, got no such "
            f"file; of {len(rows)} captions {len(missing)} have no picture"
        )
    captions = [row["text"] for row in rows]
    groups = [row.get("group") or row["text"] for row in rows]
    # one file is one group, whatever its captions and its names are (links of both kinds)
    stats = [os.stat(folder / f) for f in files]
    real = [f"{found.st_dev} {found.st_ino}" for found in stats]
    names: dict[int, str] = {}
    numbers = groups_of(groups, real)
    groups = [names.setdefault(n, group) for n, group in zip(numbers, groups, strict=True)]
    if all(row.get("split") for row in rows):
        split = np.array([row["split"] for row in rows], dtype=object)
    elif not any(row.get("split") for row in rows):
        split = _split_groups(groups, validation_share, test_share, seed)
    else:
        place = next(place_of(*row["place"]) for row in rows if not row.get("split"))
        raise DataError(f"{place}: wanted a split in every line or in none, got none in this one")
    for name in ("train", "validation", "test"):
        if name not in split:
            raise DataError(
                f"{whole}: wanted pictures in train, validation and test "
                f"(3 groups at least), got none in {name}"
            )
    sides: dict[str, str] = {}
    for row, file, part in zip(rows, real, split, strict=True):
        if sides.setdefault(file, part) != part:
            raise DataError(
                f"{place_of(*row['place'])}: wanted {row['file_name']!r} in one split, "
                f"got {sides[file]} and {part}"
            )
    train = {group for group, part in zip(groups, split, strict=True) if part == "train"}
    for row, group, part in zip(rows, groups, split, strict=True):
        if part in HELD_OUT and group in train:
            raise DataError(
                f"{place_of(*row['place'])}: wanted group {group!r} on one side, "
                f"got train and {part}"
            )
    categories = [row.get("category") or "" for row in rows]
    boxes = [row.get("boxes") or [] for row in rows]
    first = dict(zip(reversed(files), reversed(captions), strict=True))
    keys = np.array(
        [
            key_of(file if caption == first[file] else f"{file}\n{caption}")
            for file, caption in zip(files, captions, strict=True)
        ]
    )
    facts = [row.get("facts") for row in rows]
    return Pairs(keys, files, captions, split, groups, categories, boxes, facts)


def rows_of(listed: Row) -> list[dict[str, Any]]:
    """Check the columns of one row, and return it, with its place, once for each caption.

    Raises:
        DataError: There is no caption, or a column is not as wanted; names the place.
        ValueError: A caption is no text.
    """
    captions, place = listed.captions, listed.place
    # NaN is nothing, too: pandas writes it so
    nothing = {name for name, value in listed.fields.items() if value is None or value != value}
    row = {name: value for name, value in listed.fields.items() if name not in nothing}
    if not captions:
        raise DataError(f"{place}: wanted a string as 'text', got {row.get('text')!r}")
    for name in ("split", "group", "category"):
        if not isinstance(row.get(name, ""), str):
            raise DataError(f"{place}: wanted a string as {name!r}, got {row[name]!r}")
    if row.get("split") and row["split"] not in SPLITS:
        raise DataError(f"{place}: wanted split in {SPLITS}, got {row['split']!r}")
    if not _are_boxes(row.get("boxes", [])):
        raise DataError(
            f"{place}: wanted 'boxes' as a list of [x0, y0, x1, y1] in pixels with "
            f"x0 < x1 and y0 < y1, got {row['boxes']!r}"
        )
    if row.get("facts") is not None and not _are_facts(row["facts"]):
        raise DataError(
            f"{place}: wanted 'facts' as an object with the strings kind and "
            f"background and the list things (name, colour, natural, box), got {row['facts']!r}"
        )
    for name in ("group", "category"):
        texts_of(row.get(name), f"{place}: {name!r}")
    row |= {"file_name": listed.file_name, "place": (listed.file, listed.number)}
    return [{**row, "text": caption} for caption in captions]


def _are_boxes(value: object) -> bool:
    return isinstance(value, list) and all(
        isinstance(box, list)
        and len(box) == 4
        and all(isinstance(x, (int, float)) and not isinstance(x, bool) for x in box)
        and all(-MOST_PIXELS <= x <= MOST_PIXELS for x in box)
        and box[0] < box[2]
        and box[1] < box[3]
        for box in value
    )


def _are_facts(value: object) -> bool:
    return (
        isinstance(value, dict)
        and isinstance(value.get("kind"), str)
        and isinstance(value.get("background"), str)
        and isinstance(value.get("things"), list)
        and all(
            isinstance(thing, dict)
            and isinstance(thing.get("name"), str)
            and isinstance(thing.get("colour"), str)
            and isinstance(thing.get("natural"), bool)
            and _are_boxes([thing.get("box")])
            for thing in value["things"]
        )
    )


def _split_groups(
    groups: list[str], validation_share: float, test_share: float, seed: int
) -> np.ndarray:
    names = sorted(set(groups))
    order = np.random.default_rng(seed).permutation(len(names))
    tests = max(1, round(test_share * len(names)))
    validations = max(1, round(validation_share * len(names)))
    part = {names[i]: "test" for i in order[:tests]}
    part |= {names[i]: "validation" for i in order[tests : tests + validations]}
    return np.array([part.get(group, "train") for group in groups], dtype=object)


def fingerprint_of_folder(folder: Path) -> str:
    """Return a hash of the metadata and of its pictures' sizes and times.

    Nothing else in the folder counts: runs may be kept there, and other programs leave files.
    """
    digest = hashlib.sha256()
    try:
        for path in metadata_files(folder, unless=STAGE):
            digest.update(path.read_bytes())
        for file in sorted({row.file_name for row in read_metadata(folder, unless=STAGE)}):
            if os.path.isfile(folder / file):
                facts = os.stat(folder / file)
                digest.update(f"{file} {facts.st_size} {facts.st_mtime_ns}".encode())
    except ValueError as error:
        raise DataError(str(error)) from None
    return digest.hexdigest()
