"""VizWiz's questions of blind people: `train.json`, `val.json`, `test.json`, bare lists.

Pictures by `image`. A question has no id; its number is the one in the picture's name. The answer
to learn is the most frequent of the ten that is not empty, "unanswerable" among them; a question
whose answers are all empty is left out. Test questions have no answers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from cm3leon.instructions.example import Example, Examples
from cm3leon.instructions.readers.annotations import (
    NotNeeded,
    attempt,
    field,
    line_of,
    read_json,
    split_of,
)
from cm3leon.instructions.readers.picture_folder import PictureFolder
from cm3leon.instructions.readers.questions import most_frequent


def read_vizwiz(files: Sequence[Path], pictures: PictureFolder) -> Examples:
    """Yield the questions of all files."""
    for path in files:
        make = partial(_example, path, pictures)
        for place, record in enumerate(read_json(path, list), 1):
            key = record.get("image", place) if isinstance(record, dict) else place
            yield attempt(path, key, make, record)


def _example(path: Path, pictures: PictureFolder, record: Any) -> Example:
    name, split = field(record, "image", str), split_of(path.name)
    texts = {"question": line_of(record, "question")}
    number = re.findall(r"\d+", name)
    facts: dict[str, Any] = {"question_id": int(number[-1]) if number else name, "image": name}
    if split != "test" or "answers" in record:
        answers = [field(one, "answer", str) for one in field(record, "answers", list)]
        if not any(answer.strip() for answer in answers):
            raise NotNeeded("no answer but empty ones")
        texts["answer"] = most_frequent(answers)
        facts["answers"] = answers
        facts |= {name: record[name] for name in ("answer_type", "answerable") if name in record}
    return Example(
        name=name,
        texts=texts,
        pictures={"image": pictures.named(name)},
        facts=facts,
        split=split,
        source=f"{path.name}: {name}",
    )
