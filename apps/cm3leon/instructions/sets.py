"""Sets of instructions on disk: the records of one task, their pictures as codes.

    SET/task.json          the task: its templates, and what is asked for
    SET/train/...          token shards of the split's records; so validation and test

A row of the shards has the codes of all the task's pictures, one after another, and as its caption
the record's texts, facts and retrieved documents as JSON. Texts become ids when a sequence is
built: how the words of a template join them depends on the template.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from cm3_texttok import Task
from cm3_train import TokenShards
from cm3_train.artifact import check_stamp, stamp, write_json
from cm3leon.joined_tokenizers import Tokenizers
from cm3leon.stages import read_object

COMPONENT = "cm3leon/instruction-set"
VERSION = "1.0"
TASK_FILE = "task.json"
LOOKED_AT = 1000
"""Records that say whether a set's records name documents."""
SPLITS = ("train", "validation", "test")
Split = Literal["train", "validation", "test"]


@dataclass(frozen=True, kw_only=True)
class Record:
    """What fills a task's templates."""

    texts: Mapping[str, str]
    codes: Mapping[str, np.ndarray]
    """(h * w,) of each picture."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What is known beside: for figures, never seen by the model."""
    near: tuple[int, ...] = ()
    """Keys of the base run's documents that may stand before it, the best last."""

    @property
    def fields(self) -> dict[str, Any]:
        """Texts and codes, as `InstructionLayout` takes them."""
        return {**self.texts, **self.codes}


class InstructionSet:
    """Read-only view of one split of a set.

    Args:
        folder: Of the set.
        split: Which of its parts.
        vocabulary_sha256: As of `TokenShards`.

    Raises:
        FileNotFoundError: There is no set, it was never finished, or it has no such split.
        ValueError: It is of another version or vocabulary, or damaged.
    """

    def __init__(self, folder: Path, split: Split, vocabulary_sha256: str | None = None) -> None:
        """Open the shards."""
        self.folder, self.split = folder, split
        self.task = read_task(folder)
        self.shards = TokenShards(folder / split, vocabulary_sha256)

    def __len__(self) -> int:
        """Return the number of records."""
        return len(self.shards)

    @property
    def keys(self) -> np.ndarray:
        """Keys of the records, int64 (N,)."""
        return self.shards.keys

    def has_documents(self) -> bool:
        """Tell whether records name documents, by up to `LOOKED_AT` of them."""
        some = self.keys[:: max(1, len(self) // LOOKED_AT)].tolist()
        return any(self.record(key).near for key in some)

    def record(self, key: int) -> Record:
        """Return a record.

        Raises:
            KeyError: There is none of that key.
            ValueError: It is damaged.
        """
        said = json.loads(self.shards.caption(key))
        codes = np.split(self.shards.codes(key), len(self.task.pictures))
        return Record(
            texts=said["texts"],
            codes=dict(zip(self.task.pictures, codes, strict=True)),
            facts=said.get("facts", {}),
            near=tuple(said.get("near", ())),
        )


def row_of(
    key: int,
    task: Task,
    texts: Mapping[str, str],
    codes: Mapping[str, np.ndarray],
    *,
    facts: Mapping[str, Any] | None = None,
    near: Sequence[int] = (),
    source: str = "",
    licence: str = "",
) -> dict[str, Any]:
    """Return a record as a row of token shards; `write_shards` takes it.

    Args:
        key: Of the record, unique in its set.
        task: Names the pictures and their order.
        texts: By field; those that the task has none of are left out.
        codes: (h * w,) of every picture of the task.
        facts: JSON values.
        near: Keys of the base run's documents that may stand before it, the best last.
        source: Where the record comes from.
        licence: Of its pictures.
    """
    said: dict[str, Any] = {"texts": {name: texts[name] for name in task.texts if texts.get(name)}}
    if facts:
        said["facts"] = dict(facts)
    if near:
        said["near"] = list(near)
    return {
        "key": key,
        "text_ids": [],
        "codes": np.concatenate([codes[name] for name in task.pictures]),
        "caption": json.dumps(said, ensure_ascii=False),
        "source": source,
        "licence": licence,
    }


def codes_per_row(task: Task, tokenizers: Tokenizers) -> int:
    """Return the codes of a row: those of all pictures of a record."""
    return len(task.pictures) * tokenizers.num_codes_per_image


def write_task(folder: Path, task: Task) -> None:
    """Write the file that makes a folder of shards a set; call it last."""
    write_json(folder / TASK_FILE, {**stamp(COMPONENT, VERSION), **said_task(task)})


def read_task(folder: Path) -> Task:
    """Read a set's task; errors as of `InstructionSet`."""
    path = folder / TASK_FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such file; wanted a set of instructions, as apps/prepare.py --task makes"
        )
    return task_of(check_stamp(read_object(path), COMPONENT, VERSION, path), path)


def said_task(task: Task) -> dict[str, Any]:
    """Return a task as JSON values."""
    return {"name": task.name, "templates": list(task.templates), "outputs": list(task.outputs)}


def task_of(said: Any, path: Path) -> Task:
    """Return the task that JSON values say.

    Raises:
        ValueError: They say none; names the file they are from.
    """
    try:
        return Task(
            name=said["name"],
            templates=_texts(said["templates"]),
            outputs=_texts(said["outputs"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: wanted a task, got a broken one ({error})") from None


def _texts(values: Iterable[Any]) -> tuple[str, ...]:
    found = tuple(values)
    if not all(isinstance(value, str) for value in found):
        raise TypeError(f"wanted texts, got {found}")
    return found
