"""Captioned pictures that an evaluation asks for: a run's held-out pairs, or a folder's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cm3_imagetok import load_image, square
from cm3_retrieval.metadata_file import metadata_files, read_metadata
from cm3_train.artifact import sha256_of_file
from cm3leon.data.pairs import DataError, rows_of
from cm3leon.evaluation.tasks.interface import Examined, Missing


@dataclass(frozen=True, kw_only=True)
class Captioned:
    """A picture and its captions."""

    text: str
    """Its first caption."""
    key: int | str
    """Of the pair, or the name of the file."""
    row: int | None = None
    """Of the run's pair; None of a folder's picture."""
    file: Path | None = None
    references: tuple[str, ...] = ()
    """All captions."""
    facts: dict[str, Any] | None = field(default=None, compare=False)
    """What an embedded composition shows."""


def captioned(
    examined: Examined,
    role: str,
    split: str,
    number: int,
    folder: Path | None = None,
    kinds: Sequence[str] = (),
) -> list[Captioned]:
    """Return captioned pictures in an order that the evaluation's seed draws.

    Args:
        examined: The run.
        role: The task, for errors.
        split: Of the run's pairs.
        number: Most pictures.
        folder: Pictures with a `metadata.jsonl`, all of them, in place of the run's pairs.
        kinds: Only compositions of these kinds; none: all.

    Raises:
        DataError: The folder's metadata is broken, or a picture is missing.
        Missing: There are none.
    """
    if folder is not None:
        if not folder.is_dir() or not metadata_files(folder):
            raise DataError(f"{folder / 'metadata.jsonl'}: no such file; wanted captioned pictures")
        of_file: dict[str, list[str]] = {}
        for row in (row for listed in read_metadata(folder) for row in rows_of(listed)):
            of_file.setdefault(row["file_name"], []).append(row["text"])
        for file in of_file:
            if not (folder / file).is_file():
                raise DataError(f"{folder / file}: wanted the picture of a caption, got no file")
        found = [
            Captioned(text=texts[0], key=file, file=folder / file, references=tuple(texts))
            for file, texts in of_file.items()
        ]
    else:
        pairs = examined.captioned(role).pictures.pairs
        found = [
            Captioned(
                text=pairs.captions[row],
                key=int(pairs.keys[row]),
                row=int(row),
                references=(pairs.captions[row],),
                facts=pairs.facts[row],
            )
            for row in pairs.rows(split)
            if not kinds or (pairs.facts[row] or {}).get("kind") in kinds
        ]
    if not found:
        raise Missing(f"{role}: wanted captioned pictures of split {split}, got none")
    order = np.random.default_rng(examined.seed).permutation(len(found))[:number]
    return [found[place] for place in order]


@dataclass(frozen=True)
class RealPictures:
    """The pictures (N, H, W, 3) uint8 of records, read when they are asked for."""

    examined: Examined
    records: Sequence[Captioned]

    def __len__(self) -> int:
        """Return N."""
        return len(self.records)

    def __getitem__(self, place: slice, /) -> np.ndarray:
        """Return those of a slice."""
        some = self.records[place]
        if all(one.file is None for one in some):
            rows = np.array([one.row for one in some])
            return self.examined.captioned("pictures").pictures.pixels(rows)
        size = self.examined.parts.tokenizers.size
        return np.stack(
            [np.asarray(square(load_image(one.file), size)) for one in some if one.file]
        )


def said_data(records: Sequence[Captioned]) -> str:
    """Return a text that tells records from others: keys, captions, and the bytes of files."""
    return repr([
        (one.key, one.references, sha256_of_file(one.file) if one.file else None)
        for one in records
    ])  # fmt: skip
