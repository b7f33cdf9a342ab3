"""ScienceQA: `problems.json`, an object of problems by their ids.

Pictures at `images/SPLIT/ID/image.png`, or `SPLIT/ID/image.png`. The answer is its option's letter,
"(B)"; the options are "(A) x (B) y"; the context is the hint, or "N/A". The explanation is the
solution alone: the lecture says what holds for all questions of a skill, and is several times as
long. Problems without a picture are left out: the templates need one.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from cm3leon.instructions.example import Example, Examples, PictureFile
from cm3leon.instructions.readers.annotations import (
    NotNeeded,
    attempt,
    field,
    line_of,
    of_kind,
    one_line,
    read_json,
    split_of,
)
from cm3leon.instructions.readers.picture_folder import PictureFolder

FACTS = ("grade", "subject", "topic", "category", "skill")
"""Keys that scores are told apart by."""


def read_science_qa(files: Sequence[Path], pictures: PictureFolder) -> Examples:
    """Yield the problems that have a picture."""
    for path in files:
        make = partial(_example, path, pictures)
        for number, record in read_json(path, dict).items():
            yield attempt(path, f"problem {number}", make, number, record)


def _example(path: Path, pictures: PictureFolder, number: str, record: Any) -> Example:
    question = line_of(record, "question")
    if record.get("image") is None:
        raise NotNeeded("no picture")
    part, name = field(record, "split", str), field(record, "image", str)
    choices = [
        one_line(of_kind(choice, str, "choices")) for choice in field(record, "choices", list)
    ]
    answer, letters = field(record, "answer", int), string.ascii_uppercase
    if not 0 <= answer < len(choices) <= len(letters):
        raise ValueError(f"answer: wanted one of {len(choices)} choices, got {answer}")
    named = [f"({letter}) {choice}" for letter, choice in zip(letters, choices, strict=False)]
    return Example(
        name=number,
        texts={
            "question": question,
            "context": one_line(field(record, "hint", str)) or "N/A",
            "options": " ".join(named),
            "answer": f"({letters[answer]})",
            "explanation": str(record.get("solution") or "").strip(),
        },
        pictures={"image": _picture(pictures, part, number, name)},
        facts={
            "question_id": number,
            "answer": answer,
            "choices": choices,
            **{name: record[name] for name in FACTS if name in record},
        },
        split=split_of(part),
        source=f"{path.name}: {number}",
    )


def _picture(pictures: PictureFolder, part: str, number: str, name: str) -> PictureFile:
    try:
        return pictures.at("images", part, number, name)
    except ValueError:
        return pictures.at(part, number, name)
