"""Records of instructions that an evaluation asks for, and what a tuned model makes of them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cm3_texttok import Task
from cm3leon.drawing.follow import answering_records, drawing_records
from cm3leon.evaluation.tasks.interface import Examined, Missing
from cm3leon.instructions.sets import Record


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A record that is asked for."""

    task: Task
    record: Record
    key: int
    set_name: str
    references: list[str]
    """The true texts: of a question all its answers, of a picture all its captions."""

    @property
    def given(self) -> dict[str, Any]:
        """The fields without what is asked for."""
        outputs = set(self.task.outputs)
        return {name: x for name, x in self.record.fields.items() if name not in outputs}


def asked_of(
    examined: Examined, role: str, names: Sequence[str], number: int, *, one_a_picture: bool = False
) -> list[Asked]:
    """Return records of the sets of some tasks, at most `number` of each set, drawn by the seed.

    Records that ask for a text and have none, as published tests have, are left out.

    Args:
        examined: The run and its sets.
        role: The task of the evaluation, for errors.
        names: Tasks of instructions.
        number: Most records of a set.
        one_a_picture: Records that ask for the same of the same picture are one, with the texts of
            all as its references.

    Raises:
        Missing: The run was not tuned, or there is no such set, or only empty ones.
    """
    tuned = examined.following(role)
    found: list[Asked] = []
    for one in examined.sets_of(role, *names):
        task = tuned.task(one.task.name) if one.task.name in tuned.tasks else one.task
        of_set: dict[Any, Asked] = {}
        for key in np.random.default_rng(examined.seed).permutation(one.keys).tolist():
            if len(of_set) == number and not one_a_picture:
                break
            record = one.record(key)
            text = record.texts.get(task.outputs[-1], "")
            said = list(record.facts.get("answers", [text] if text else []))
            if task.outputs[-1] in task.texts and not said:
                continue  # of a test whose answers are not published
            same: Any = key
            if one_a_picture:
                same = (
                    tuple(codes.tobytes() for codes in record.codes.values()),
                    record.texts.get("question", ""),
                )
            if same in of_set:
                of_set[same].references.extend(said)
            else:
                of_set[same] = Asked(
                    task=task, record=record, key=key, set_name=one.task.name, references=said
                )
        found += list(of_set.values())[:number]
    if not found:
        raise Missing(f"{role}: wanted records in the sets of {' or '.join(names)}, got none")
    return found


def said_data(records: Sequence[Asked]) -> str:
    """Return a text that tells records from others: keys, texts, and the pictures' codes."""
    return repr([
        (one.set_name, one.key, dict(one.record.texts), one.references, codes_sha256(one.record))
        for one in records
    ])  # fmt: skip


def codes_sha256(record: Record) -> str:
    """Return the SHA-256 of a record's pictures as codes."""
    joined = b"".join(codes.tobytes() for _, codes in sorted(record.codes.items()))
    return hashlib.sha256(joined).hexdigest()


def answered(examined: Examined, records: Sequence[Asked], template: int = 0) -> list[str]:
    """Return the texts that records ask for, by the likeliest tokens."""
    said = [""] * len(records)
    for name in dict.fromkeys(one.set_name for one in records):
        mine = [place for place, one in enumerate(records) if one.set_name == name]
        some = [records[place] for place in mine]
        answering = answering_records(
            examined.parts,
            some[0].task,
            [one.given for one in some],
            contexts=[one.record.near[-1:] for one in some],
            template=min(template, len(some[0].task.templates) - 1),
        )
        found = answering.carry_out(examined.parts, batch_size=examined.batch_size)
        for place, text in zip(mine, found, strict=True):
            said[place] = text
    return said


def drawn_for(
    examined: Examined, records: Sequence[Asked], first: int, **changes: Any
) -> np.ndarray:
    """Draw the picture (N, H, W, 3) that each record of one task asks for.

    Args:
        examined: The run; it draws as it was tuned to.
        records: N.
        first: Place of the first among all records: with the seed it decides what is drawn.
        changes: Fields of `SamplingConfig` that differ; None values are skipped.

    Raises:
        ValueError: The run has not learnt a stream of guidance that is asked for.
    """
    tuned = examined.following(records[0].task.name)
    drawing = drawing_records(
        examined.parts,
        records[0].task,
        [one.given for one in records],
        sampling=tuned.sampling(records[0].task.name, changes),
        seeds=examined.seed + first + np.arange(len(records))[:, None],
    )
    codes = drawing.carry_out(examined.parts, batch_size=examined.batch_size)
    return examined.parts.tokenizers.decode(codes[:, 0])
