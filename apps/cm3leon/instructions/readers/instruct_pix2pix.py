"""InstructPix2Pix's edits, in the authors' folders and as Parquet.

Folders: `seeds.json`, `[[folder, [seed, ...]], ...]`, and in each folder `prompt.json` (`input` or
`caption`, `edit`, `output`), `SEED_0.jpg` (before) and `SEED_1.jpg` (after). The first 90 % of the
folders are training, 5 % validation, 5 % test, as the authors split them. The `metadata.jsonl` in
the folders is no imagefolder's and is left alone.

Parquet: columns `original_prompt`, `original_image`, `edit_prompt`, `edited_prompt` and
`edited_image`. It has no split; edits are held out by a hash of their prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cm3_retrieval.picture_file import shown
from cm3leon.data.raw_files import Unusable, refused_name
from cm3leon.instructions.example import Example, Examples, split_by_hash
from cm3leon.instructions.parquet_picture import ParquetPicture
from cm3leon.instructions.readers.annotations import (
    attempt,
    field,
    line_of,
    of_kind,
    one_line,
    read_json,
)
from cm3leon.instructions.readers.picture_folder import PictureFolder
from cm3leon.instructions.sets import Split

TRAIN, VALIDATION = 90, 5
"""Percent of the folders."""
COLUMNS = ("original_prompt", "edit_prompt", "edited_prompt")
PICTURES = {"source": "original_image", "image": "edited_image"}
"""Field -> column."""


def read_folders(files: Sequence[Path], pictures: PictureFolder) -> Examples:
    """Yield the edits of all folders; one that holds no seed gives none."""
    for path in files:
        listed = read_json(path, list)
        for place, entry in enumerate(listed):
            try:
                folder, seeds = of_kind(entry, list, "entry")
                name = of_kind(folder, str, "folder")
                numbers = [of_kind(seed, int, "seed") for seed in of_kind(seeds, list, "seeds")]
                if refused := refused_name(name):
                    raise ValueError(refused)
                prompt = read_json(path.parent / name / "prompt.json", dict) if numbers else {}
            except (OSError, ValueError) as error:
                yield Unusable(file=path.name, key=f"entry {place + 1}", reason=str(error))
                continue
            make = partial(_edit, path, PictureFolder(path.parent), name, prompt)
            split = _split_at(place, len(listed))
            for number in numbers:
                yield attempt(path, f"{name}/{number}", make, number, split)


def _split_at(place: int, count: int) -> Split:
    if place < TRAIN * count // 100:
        return "train"
    return "validation" if place < (TRAIN + VALIDATION) * count // 100 else "test"


def _edit(
    path: Path,
    pictures: PictureFolder,
    folder: str,
    prompt: dict[str, Any],
    seed: int,
    split: Split,
) -> Example:
    before = "input" if "input" in prompt else "caption"
    return Example(
        name=f"{folder}/{seed}",
        texts={"instruction": line_of(prompt, "edit")},
        pictures={
            "source": pictures.at(folder, f"{seed}_0.jpg"),
            "image": pictures.at(folder, f"{seed}_1.jpg"),
        },
        facts=_facts(prompt.get(before), prompt.get("output")),
        split=split,
        source=f"{path.name}: {folder}/{seed}",
    )


def read_parquet(files: Sequence[Path], pictures: PictureFolder) -> Examples:
    """Yield the edits of all rows; the pictures' columns are not read here.

    Raises:
        ValueError: A file is no Parquet or lacks a column; names it.
    """
    for path in files:
        try:
            with pq.ParquetFile(path) as file:
                if missing := {*COLUMNS, *PICTURES.values()} - set(file.schema_arrow.names):
                    raise ValueError(f"{shown(path)}: wanted the columns {sorted(missing)} too")
                row = 0
                for batch in file.iter_batches(columns=list(COLUMNS)):
                    for record in batch.to_pylist():
                        yield attempt(path, f"row {row + 1}", _row, path, row, record)
                        row += 1
        except pa.ArrowException as error:
            raise ValueError(f"{shown(path)}: wanted a Parquet file, got: {error}") from None


def _row(path: Path, row: int, record: dict[str, Any]) -> Example:
    instruction = line_of(record, "edit_prompt")
    before, after = record["original_prompt"], record["edited_prompt"]
    return Example(
        name=f"{path.name}/{row}",
        texts={"instruction": instruction},
        pictures={name: ParquetPicture(path, column, row) for name, column in PICTURES.items()},
        facts=_facts(before, after),
        split=split_by_hash(f"{before}\n{instruction}"),
        source=f"{path.name}: row {row + 1}",
    )


def _facts(before: object, after: object) -> dict[str, str]:
    """Return what the two pictures show, for figures that compare captions with pictures."""
    said = {"input": before, "output": after}
    return {name: one_line(field(said, name, str)) for name in said if said[name] is not None}
