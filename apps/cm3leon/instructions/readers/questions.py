"""VQA v2 and OK-VQA: questions in one file, ten answers to each in another.

Files: `v2_OpenEnded_mscoco_SUBSET_questions.json` and `v2_mscoco_SUBSET_annotations.json`; OK-VQA's
are the same without `v2_`. Pictures: `COCO_SUBSET_000000000042.jpg`, the subset as
in the name of the questions' file (`test2015` for `test-dev2015`).

The answer to learn is VQA v2's `multiple_choice_answer`, and the most frequent `raw_answer` of
OK-VQA, whose `answer` is stemmed and for scoring alone. Facts keep the ten. Test questions have no
answers; of `test2015` and its part `test-dev2015` only the part is read where both are there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cm3leon.data.raw_files import Unusable
from cm3leon.instructions.example import Example, Examples
from cm3leon.instructions.readers.annotations import (
    attempt,
    entries,
    field,
    line_of,
    one_line,
    read_json,
    split_of,
)
from cm3leon.instructions.readers.picture_folder import PictureFolder
from cm3leon.instructions.sets import Split


def read_questions(files: Sequence[Path], pictures: PictureFolder) -> Examples:
    """Yield the questions of all files.

    Raises:
        ValueError: The answers of a file that is not of the test are missing; or as of all readers.
    """
    names = {path.name for path in files}
    for path in files:
        if path.name.replace("_test2015_", "_test-dev2015_") in names - {path.name}:
            continue
        subset, split = _subset_of(path), split_of(path.name)
        beside = path.with_name(
            path.name.replace("OpenEnded_", "").replace("_questions", "_annotations")
        )
        answers: dict[int, dict[str, Any]] = {}
        if beside.is_file():
            for place, one in enumerate(entries(beside, read_json(beside, dict), "annotations"), 1):
                try:
                    answers[field(one, "question_id", int)] = one
                except ValueError as error:
                    key = f"annotation {place}"
                    yield Unusable(file=beside.name, key=key, reason=str(error))
        elif split != "test":
            raise ValueError(f"{path}: wanted its answers in {beside.name} beside it, got none")
        asked = _Asked(path, subset, split, answers, pictures)
        for place, one in enumerate(entries(path, read_json(path, dict), "questions"), 1):
            key = one.get("question_id", place) if isinstance(one, dict) else place
            yield attempt(path, f"question {key}", asked.example, one)


@dataclass(frozen=True)
class _Asked:
    """A file of questions, and what belongs to it."""

    path: Path
    subset: str
    split: Split
    answers: dict[int, dict[str, Any]]
    pictures: PictureFolder

    def example(self, record: Any) -> Example:
        number, image = field(record, "question_id", int), field(record, "image_id", int)
        texts = {"question": line_of(record, "question")}
        facts: dict[str, Any] = {"question_id": number, "image_id": image}
        if number in self.answers:
            answered = self.answers[number]
            given = field(answered, "answers", list)
            texts["answer"] = _answer(answered, given)
            facts["answers"] = [field(answer, "answer", str) for answer in given]
            kinds = ("question_type", "answer_type")
            facts |= {name: answered[name] for name in kinds if name in answered}
        elif self.split != "test":
            raise ValueError("wanted its answers in the annotations, got none")
        name = f"COCO_{self.subset.replace('test-dev', 'test')}_{image:012}.jpg"
        return Example(
            name=str(number),
            texts=texts,
            pictures={"image": self.pictures.named(name)},
            facts=facts,
            split=self.split,
            source=f"{self.path.name}: {name}",
        )


def _subset_of(path: Path) -> str:
    """Return `train2014` of `v2_OpenEnded_mscoco_train2014_questions.json`."""
    return path.name.partition("mscoco_")[2].removesuffix("_questions.json")


def _answer(record: dict[str, Any], given: list[Any]) -> str:
    if "multiple_choice_answer" in record:
        return line_of(record, "multiple_choice_answer")
    return most_frequent([field(one, "raw_answer", str) for one in given])


def most_frequent(answers: Sequence[str]) -> str:
    """Return the most frequent answer that is not blank; of equally frequent ones the first.

    Raises:
        ValueError: All are blank, or there is none.
    """
    counts = Counter(said for answer in answers if (said := one_line(answer)))
    if not counts:
        raise ValueError("answers: wanted at least one that is not empty, got none")
    return counts.most_common(1)[0][0]
