"""Figures of every embedded task: of the tuned model, of the untuned one, chance, and the ceiling.

The records are those of the sets' test splits: combinations of thing and colour that neither the
pretraining nor the tuning has shown. The ceiling are the real pictures through the tokenizer, and
chance the real output of another record of the same kind.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from cm3_decoding import SamplingConfig
from cm3_texttok import Task
from cm3_train import progress_bar
from cm3leon.drawing.follow import answering_records, drawing_records
from cm3leon.evaluation.instructions import pictures, texts
from cm3leon.evaluation.judge import Judge
from cm3leon.instructions.sets import InstructionSet, Record
from cm3leon.joined_tokenizers import Tokenizers
from cm3leon.parts import Parts

HOW = pictures.HOW | texts.HOW
OTHERS = {
    "untuned": "The same of the run that the tuning started from.",
    "chance": "The same of the real output of another record of the kind.",
    "ceiling": "The same of the real output, pictures through the tokenizer.",
}
"""What a figure's name may end with, and what it then means."""
Figures = dict[str, dict[str, float]]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Records of one task that a figure asks for."""

    task: Task
    records: Sequence[Record]
    tokenizers: Tokenizers

    @property
    def facts(self) -> list[Mapping[str, Any]]:
        """What is known of each."""
        return [record.facts for record in self.records]

    @property
    def plain(self) -> list[dict[str, Any]]:
        """Texts and facts of each, as scores take them."""
        return [{"texts": record.texts, "facts": record.facts} for record in self.records]

    @property
    def given(self) -> list[dict[str, Any]]:
        """The fields of each without what is asked for."""
        outputs = set(self.task.outputs)
        return [
            {name: value for name, value in record.fields.items() if name not in outputs}
            for record in self.records
        ]

    def decoded(self, field: str) -> np.ndarray:
        """Return a picture of each (N, H, W, 3), through the tokenizer."""
        return self.tokenizers.decode(np.stack([record.codes[field] for record in self.records]))

    @cached_property
    def answers(self) -> list[str]:
        """The true text of each, as the task's first template asks for it."""
        return [record.texts[self.task.outputs[-1]] for record in self.records]


def asked_for(
    sets: Sequence[InstructionSet], tokenizers: Tokenizers, samples: int
) -> dict[str, Asked]:
    """Return the records that figures ask for, by task: so many of each kind of a task."""
    found = {}
    for one in sets:
        of_kind: dict[str, list[Record]] = {}
        for key in one.keys.tolist():
            record = one.record(key)
            of_kind.setdefault(kind_of(record.facts), []).append(record)
        records = [record for kind in of_kind.values() for record in kind[:samples]]
        found[one.task.name] = Asked(task=one.task, records=records, tokenizers=tokenizers)
    return found


def drawn(
    parts: Parts, asked: Asked, sampling: Callable[[str], SamplingConfig], batch_size: int
) -> np.ndarray:
    """Draw one picture (N, H, W, 3) for each record."""
    drawing = drawing_records(
        parts,
        asked.task,
        asked.given,
        sampling=sampling(asked.task.name),
        seeds=np.arange(len(asked.records))[:, None],
    )
    with progress_bar(asked.task.name) as progress:
        codes = drawing.carry_out(parts, progress=progress, batch_size=batch_size)
    return parts.tokenizers.decode(codes[:, 0])


def said(parts: Parts, asked: Asked, batch_size: int, template: int = 0) -> list[str]:
    """Answer each record by the likeliest tokens."""
    answering = answering_records(
        parts,
        asked.task,
        asked.given,
        contexts=[record.near[-1:] for record in asked.records],
        template=template,
    )
    with progress_bar(asked.task.name) as progress:
        return answering.carry_out(parts, progress=progress, batch_size=batch_size)


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """What somebody made of all that was asked for."""

    pictures: Mapping[str, np.ndarray]
    """(N, H, W, 3) by task."""
    texts: Mapping[str, Sequence[str]]
    """N by task; "science_qa reasoned" has reason and answer."""


def outputs_of(
    parts: Parts,
    asked: Mapping[str, Asked],
    sampling: Callable[[str], SamplingConfig],
    batch_size: int,
) -> Outputs:
    """Let a model follow all instructions."""
    made, answers = {}, {}
    for name, one in asked.items():
        if one.task.outputs == ("image",):
            made[name] = drawn(parts, one, sampling, batch_size)
        else:
            answers[name] = said(parts, one, batch_size)
    if "science_qa" in asked:
        answers[REASONED] = said(parts, asked["science_qa"], batch_size, template=1)
    return Outputs(pictures=made, texts=answers)


REASONED = "science_qa reasoned"


def true_outputs(asked: Mapping[str, Asked], shift: int = 0) -> Outputs:
    """Return the real outputs; with a shift, those of other records of the same kind."""
    made, answers = {}, {}
    for name, one in asked.items():
        order = _shifted(one, shift)
        if one.task.outputs == ("image",):
            made[name] = one.decoded("image")[order]
        else:
            answers[name] = [one.answers[place] for place in order]
    if "science_qa" in asked:
        one = asked["science_qa"]
        whole = [
            f"{record.texts['explanation']} So the answer is {record.texts['answer']}"
            for record in one.records
        ]
        answers[REASONED] = [whole[place] for place in _shifted(one, shift)]
    return Outputs(pictures=made, texts=answers)


def score(asked: Mapping[str, Asked], outputs: Outputs, judge: Judge) -> Figures:
    """Compute every figure of some outputs."""
    found: Figures = {}
    for name, (task, figures) in _SCORES.items():
        if task in asked:
            found[name] = figures(asked[task], outputs, judge)
    if {"coco_caption", "image_paragraph"} <= asked.keys():
        short, long = asked["coco_caption"], asked["image_paragraph"]
        found["caption"] = texts.score_captions(
            outputs.texts["coco_caption"],
            short.plain,
            outputs.texts["image_paragraph"],
            long.plain,
        )
    return found


def beside(tuned: Figures, others: Mapping[str, Figures]) -> Figures:
    """Join figures with the same of others: `colour`, `colour.chance`, ..."""
    return {
        part: {
            name: value
            for figure, mine in figures.items()
            for name, value in (
                (figure, mine),
                *(
                    (f"{figure}.{other}", theirs[part][figure])
                    for other, theirs in others.items()
                    if figure in theirs.get(part, {})
                ),
            )
        }
        for part, figures in tuned.items()
    }


def _edit(asked: Asked, outputs: Outputs, judge: Judge) -> dict[str, float]:
    source = asked.decoded("source")
    return pictures.score_edits(outputs.pictures["edit"], source, asked.facts, judge)


def _edges(asked: Asked, outputs: Outputs, judge: Judge) -> dict[str, float]:
    real = asked.decoded("image")
    return pictures.score_edges(outputs.pictures["canny"], real)


def _shapes(task: str) -> Callable[[Asked, Outputs, Judge], dict[str, float]]:
    return lambda asked, outputs, judge: pictures.score_shapes(
        outputs.pictures[task], asked.decoded("image")
    )


_SCORES: dict[str, tuple[str, Callable[[Asked, Outputs, Judge], dict[str, float]]]] = {
    "edit": ("edit", _edit),
    "boxes": ("boxes", lambda a, o, j: pictures.score_boxes(o.pictures["boxes"], a.facts)),
    "write": ("write", lambda a, o, j: pictures.score_writing(o.pictures["write"], a.facts)),
    "canny": ("canny", _edges),
    "scribble": ("scribble", _shapes("scribble")),
    "segmentation": ("segmentation", _shapes("segmentation")),
    "ask": ("vqa2", lambda a, o, j: texts.score_answers(o.texts["vqa2"], a.plain)),
    "choice": (
        "science_qa",
        lambda a, o, j: texts.score_choices(o.texts["science_qa"], o.texts[REASONED], a.plain),
    ),
}
"""The figures of each part of the report, and the task that they are of."""


def kind_of(facts: Mapping[str, Any]) -> str:
    """Return the kind of edit or question that a record is, empty where its task has one kind."""
    return str(facts.get("change", facts.get("question", "")))


def _shifted(asked: Asked, shift: int) -> list[int]:
    """Return the places of the records, moved on by some within their kinds."""
    of_kind: dict[str, list[int]] = {}
    for place, fact in enumerate(asked.facts):
        of_kind.setdefault(kind_of(fact), []).append(place)
    order = list(range(len(asked.records)))
    for places in of_kind.values():
        for place, other in zip(places, np.roll(places, shift).tolist(), strict=True):
            order[place] = other
    return order
