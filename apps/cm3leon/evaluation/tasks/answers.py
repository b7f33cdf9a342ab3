"""Answers to questions, and choices of one of several options, by a tuned run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cm3leon.evaluation.measures.choices import right_choices
from cm3leon.evaluation.measures.vqa import PEOPLE, normalised_answer, vqa_accuracy
from cm3leon.evaluation.tasks.following import Asked, answered, asked_of, said_data
from cm3leon.evaluation.tasks.interface import Examined, Outputs, Scores

QUESTIONS = {
    "accuracy_official": "VQA accuracy as the official code computes it (arXiv 1505.00468): "
    "answers are normalised only where the ten people's differ. A single true answer counts ten "
    "times.",
    "accuracy_always_normalised": "The same with answers normalised in any case.",
    "exact": "Share of answers that are, normalised, the most frequent true one.",
}
CHOICES = {
    "accuracy": "Share of right choices; a text that chooses none is wrong.",
    "accuracy_reasoned": "The same, asked for the reason first.",
}
GROUPS = ("question", "answer_type", "subject", "grade")
"""Facts of a record that figures are told apart by."""
_OPTION = re.compile(r"\(([A-Z])\) (.*?)(?= \([A-Z]\) |$)")


@dataclass(frozen=True, kw_only=True)
class Questions:
    """Asks the questions of sets of instructions."""

    of: tuple[str, ...] = ("vqa2", "okvqa", "vizwiz")
    """Tasks of the sets."""
    number: int = 1000
    """Most questions of a set."""

    def records(self, examined: Examined) -> list[Asked]:
        """Return the questions that have answers.

        Raises:
            ValueError: One has neither one answer nor ten.
        """
        found = asked_of(examined, "questions", self.of, self.number)
        for one in found:
            if len(one.references) not in (1, PEOPLE):
                raise ValueError(
                    f"questions: {one.set_name}, record {one.key}: wanted one answer or {PEOPLE}, "
                    f"got {len(one.references)}"
                )
        return found

    def data(self, examined: Examined, records: Sequence[Asked]) -> str:
        """Return keys, questions and answers."""
        return said_data(records)

    def make(self, examined: Examined, records: Sequence[Asked], first: int) -> Outputs:
        """Answer."""
        return {"said": np.array(answered(examined, records), object)}

    def score(
        self, examined: Examined, records: Sequence[Asked], outputs: dict[str, Any]
    ) -> Scores:
        """Compare with the true answers."""
        said = outputs["said"].tolist()
        wanted = [_ten(one.references) for one in records]
        accuracy = vqa_accuracy(said, wanted)
        true = [normalised_answer(max(ten, key=ten.count)) for ten in wanted]
        exact = [normalised_answer(text) == one for text, one in zip(said, true, strict=True)]
        values = {
            "accuracy_official": accuracy.official,
            "accuracy_always_normalised": accuracy.always_normalised,
            "exact": np.array(exact, float),
        }
        values |= by_group("accuracy_official", values["accuracy_official"], records)
        return Scores(
            figures={name: float(np.nanmean(found)) for name, found in values.items()},
            how=QUESTIONS,
            values=values,
            sheet=sheet(examined, records, said),
        )


@dataclass(frozen=True, kw_only=True)
class Choices:
    """Asks for one of several options, alone and with the reason first."""

    of: str = "science_qa"
    """Task of the sets: its first template asks for the option alone, its second for the reason."""
    number: int = 1000
    """Most questions of a set."""

    def records(self, examined: Examined) -> list[Asked]:
        """Return the questions."""
        return asked_of(examined, "choices", (self.of,), self.number)

    def data(self, examined: Examined, records: Sequence[Asked]) -> str:
        """Return keys, questions and answers."""
        return said_data(records)

    def make(self, examined: Examined, records: Sequence[Asked], first: int) -> Outputs:
        """Choose, twice."""
        return {
            "said": np.array(answered(examined, records), object),
            "reasoned": np.array(answered(examined, records, template=1), object),
        }

    def score(
        self, examined: Examined, records: Sequence[Asked], outputs: dict[str, Any]
    ) -> Scores:
        """Compare with the right options."""
        found = [_OPTION.findall(one.record.texts["options"]) for one in records]
        options = [[text for _, text in some] for some in found]
        right = [
            [f"({letter})" for letter, _ in some].index(one.record.texts["answer"])
            for one, some in zip(records, found, strict=True)
        ]
        values = {
            "accuracy": right_choices(outputs["said"].tolist(), options, right).astype(float),
            "accuracy_reasoned": right_choices(outputs["reasoned"].tolist(), options, right).astype(
                float
            ),
        }
        values |= by_group("accuracy", values["accuracy"], records)
        return Scores(
            figures={name: float(np.nanmean(one)) for name, one in values.items()},
            how=CHOICES,
            values=values,
            sheet=sheet(examined, records, outputs["reasoned"].tolist()),
        )


def by_group(figure: str, values: np.ndarray, records: Sequence[Asked]) -> dict[str, np.ndarray]:
    """Return a figure's values (N,) for each set and kind of record: NaN of the others."""
    found = {}
    labels = {"set": [one.set_name for one in records]}
    labels |= {name: [one.record.facts.get(name) for one in records] for name in GROUPS}
    for name, mine in labels.items():
        kinds = sorted({str(one) for one in mine if one is not None})
        if name == "set" and len(kinds) < 2:
            continue
        for kind in kinds:
            here = np.array([one is not None and str(one) == kind for one in mine])
            found[f"{figure}.{name}.{kind}"] = np.where(here, values, np.nan)
    return found


def sheet(examined: Examined, records: Sequence[Asked], said: Sequence[str]) -> Any:
    """Return what was asked and said of the first pictures."""
    some = range(min(8, len(records)))
    codes = np.stack([records[place].record.codes["image"] for place in some])
    pictures = examined.parts.tokenizers.decode(codes)
    rows = [
        (f"{records[place].record.texts['question']} {said[place]}", [pictures[place]])
        for place in some
    ]
    return rows, ["picture"]


def _ten(answers: list[str]) -> list[str]:
    """Return ten answers: those of ten people, or the only one ten times."""
    return answers * PEOPLE if len(answers) == 1 else answers
